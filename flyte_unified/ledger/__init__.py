"""The one truth about runs, actions, attempts and phases, and the only room that writes them."""
