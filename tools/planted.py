"""What planted-bugs and planted-limits share: a copy of the tree, the places in it that they change, and how they are called."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# The workspace that is built, and what its tests read.
COPIED = ['Cargo.toml', 'Cargo.lock', 'clippy.toml', 'crates', 'benches', 'loadtest']


def called(lines, places):
    """Reads the arguments: the names that were given, and the tree. --list and --places are answered here.

    `lines` are what --list prints. `places(tree)` is what is wrong with the list, a line each, and what to say when nothing is.
    """
    names, tree = [], HERE
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument == '--list':
            print('\n'.join(lines))
            sys.exit()
        if argument == '--places':
            wrong, well = places(tree)
            if wrong:
                sys.exit('\n'.join(wrong))
            print(well)
            sys.exit()
        if argument == '--tree':
            tree = Path(next(arguments)).resolve()
        else:
            names.append(argument)
    return names, tree


def gone(tree, changes):
    """A line for each of `changes` (name, file, what stands there) that does not have its place exactly once."""
    wrong = []
    for name, file, old in changes:
        path = tree / file
        places = path.read_text().count(old) if path.exists() else 'no file,'
        if places != 1:
            wrong.append(f'{name}: {file} has its place {places} times; let the list follow the code')
    return wrong


def chosen(listed, names, what):
    """Those of `listed` whose name has one of `names` in it; all without names."""
    found = [one for one in listed if not names or any(name in one[0] for name in names)]
    if not found:
        sys.exit(f'no {what} is called {names}; --list prints them')
    return found


def work_folder(name):
    """Where copies are built."""
    return Path(os.environ.get('CARGO_TARGET_DIR', HERE / 'target')) / name


def copy_tree(tree, copy, more=(), instead=None):
    """Makes `copy` a copy of what is built, and of `more`. `instead` has the text of files that are to differ, by their paths.

    Files that are as they should be are not touched, so that a later run builds only what has changed. What differs is written
    anew, and so what an interrupted run has left, and what was built of it, do not look up to date.
    """
    instead = instead or {}
    wanted = set()
    for name in [*COPIED, *more]:
        for source in files_of(tree / name):
            path = source.relative_to(tree)
            goal = copy / path
            wanted.add(goal)
            content = instead[str(path)].encode() if str(path) in instead else source.read_bytes()
            if not goal.is_file() or goal.read_bytes() != content:
                goal.parent.mkdir(parents=True, exist_ok=True)
                goal.write_bytes(content)
                shutil.copymode(source, goal)
    for path in files_of(copy):
        if path not in wanted:
            path.unlink()


def files_of(folder):
    """The file of that name, or those in the folder; not what was built or installed there."""
    if folder.is_file():
        yield folder
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ('target', 'node_modules')]
        yield from (Path(root) / name for name in names)
