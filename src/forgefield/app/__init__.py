"""The only room that knows run.yaml and the user: configuration, tasks, reports and the command line."""
