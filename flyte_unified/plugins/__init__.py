"""What a task type means, as data. A plugin does nothing itself: launchers make its ``Work`` real."""
