"""The command: python -m tests.cluster {build,up,images,with,down,status,kubeconfig}."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster import binaries, lifecycle
from tests.cluster.errors import ClusterError
from tests.cluster.handle import Cluster
from tests.cluster.progress import say
from tests.cluster.project_images import PROJECT_IMAGES, fast_image
from tests.cluster.settings import Mode, default_name, find_instance


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--name", default=default_name(), help="which instance (PLIMSOLL_CLUSTER, or default)")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, meaning in (
        ("build", "build what a cluster and its images are made of, without starting one"),
        ("up", "bring a cluster up; what runs already is left as it is"),
    ):
        sub = commands.add_parser(command, help=meaning)
        how = sub.add_mutually_exclusive_group()
        how.add_argument(
            "--api-only", dest="mode", action="store_const", const=Mode.API_ONLY, help="etcd and API server only"
        )
        how.add_argument(
            "--fake-nodes", dest="mode", action="store_const", const=Mode.FAKE_NODES,
            help="controllers, scheduler and kwok in place of a node",
        )  # fmt: skip
        sub.set_defaults(mode=Mode.NODE)
        if command == "up":
            sub.add_argument(
                "--fake-config",
                action="append",
                default=[],
                type=Path,
                help="more stages and logs for kwok",
            )
            sub.add_argument("--no-images", action="store_true", help="leave the project's images out")
    within = commands.add_parser("with", help="run a command with a cluster up; take down what was started for it")
    within.add_argument("program", nargs="+", metavar="COMMAND", help="what to run, after --")
    commands.add_parser("images", help="make the project's images anew in a cluster that is up, if they changed")
    down = commands.add_parser("down", help="take a cluster down, leaving nothing but images and logs on disk")
    down.add_argument("--wipe", action="store_true", help="leave not even those")
    commands.add_parser("status", help="say what runs; exit 1 when the API server does not answer")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    options = parser.parse_args(arguments)
    # An ordinary kill then ends what was started here (a build, a cluster of `with`), as an interrupt does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return int(_COMMANDS[options.command](options))
    except KeyboardInterrupt:
        return 130
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _build(options: argparse.Namespace) -> int:
    binaries.build(options.mode)
    if options.mode is Mode.NODE:
        for image in PROJECT_IMAGES:
            fast_image(image)
    return 0


def _up(options: argparse.Namespace) -> int:
    if os.environ.get("PLIMSOLL_KUBECONFIG"):
        say(f"using the cluster of {Cluster.up().kubeconfig}")
        return 0
    # Not by Cluster.up: after an interrupt the next `up` goes on with what is there.
    wanted = () if options.no_images or options.mode is not Mode.NODE else PROJECT_IMAGES
    instance = lifecycle.bring_up(options.name, options.mode, wanted, options.fake_config)
    say(f"up; export KUBECONFIG={instance.kubeconfig}; kubectl: {binaries.tool('kubectl')}")
    return 0


def _down(options: argparse.Namespace) -> int:
    if os.environ.get("PLIMSOLL_KUBECONFIG"):
        say("the cluster of PLIMSOLL_KUBECONFIG is not ours to take down")
        return 0
    lifecycle.take_down(options.name, wipe=options.wipe)
    return 0


def _with(options: argparse.Namespace) -> int:
    with Cluster.up(options.name) as cluster:
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PLIMSOLL_CLUSTER": options.name}
        return subprocess.run(options.program, env=environment, check=False).returncode


def _images(options: argparse.Namespace) -> int:
    if os.environ.get("PLIMSOLL_KUBECONFIG"):
        Cluster.up()
        names = ", ".join(image.name for image in PROJECT_IMAGES)
        say(f"the cluster of PLIMSOLL_KUBECONFIG answers; it must have or pull {names}")
        return 0
    if not lifecycle.answers(options.name):
        raise ClusterError(f"the cluster {options.name!r} is not up")
    lifecycle.bring_up(options.name, Mode.NODE, PROJECT_IMAGES)
    return 0


def _status(options: argparse.Namespace) -> int:
    for line in lifecycle.describe(options.name):
        print(line)
    return 0 if lifecycle.answers(options.name) else 1


def _kubeconfig(options: argparse.Namespace) -> int:
    instance = find_instance(options.name)
    if instance is None:
        raise ClusterError(f"the cluster {options.name!r} is not up")
    print(instance.kubeconfig)
    return 0


_COMMANDS = {
    "build": _build,
    "up": _up,
    "images": _images,
    "with": _with,
    "down": _down,
    "status": _status,
    "kubeconfig": _kubeconfig,
}

if __name__ == "__main__":
    sys.exit(main())
