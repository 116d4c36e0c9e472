"""What a run can do, one file each: `run_task(config, console)` reads as a paragraph."""
