"""forgefield run: carry out what a YAML file says."""

from __future__ import annotations

from forgefield.app.commands.execution import carry_out
from forgefield.app.commands.flags import ConfigArgument, ContinueOption, RunOption, SetOption


def command(
    config: ConfigArgument, run: RunOption = None, go_on: ContinueOption = False, overrides: SetOption = None
) -> None:
    """Carry out the runs of a YAML file, one after the other.

    The file says everything: task, data, model, training. Relative paths in
    it are taken from its folder, those in --set from the current one.
    Everything a run makes stands in its run_dir: run.resolved.yaml (the
    frozen settings), history.csv, checkpoints/, artifacts/ (the model to use),
    evaluation/, report.html.

    A run that SIGTERM, SIGUSR1 or Ctrl-C stopped goes on by itself; with
    --continue so does one that was killed, and the same line always works.

    [bold]Examples[/bold]

      forgefield run run.yaml

      forgefield run run.yaml --run finetune --set train.epochs=20

      forgefield run run.yaml --set 'data.train=[a.xyz, b.xyz]'
    """
    from forgefield.app.run import load_run

    carry_out(load_run(config, run, overrides or ()), go_on=go_on)
