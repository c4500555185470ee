"""Jobs that connectors run somewhere else: created once, asked about, deleted when nobody wants them any more.

A job outlives this server, and this server must not forget one: it may cost money by the minute. So what a connector needs to
be asked about it is kept in the database as soon as there is a job, before anything is told, until its end is known.
"""
