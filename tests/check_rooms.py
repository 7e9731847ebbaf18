#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The rooms of the code, against their drawing in docs/design.md: who includes whom, no arrow up, no circle, no room too large.

   check_rooms.py SOURCE_DIRECTORY

The drawing is a block of lines `room -> rooms  words`, in which arrows point to lines further up alone. Every #include from one room to another must be an
arrow, and every arrow an #include. Inside of a room a file x.c and its header x.h are one part, and parts that include each other must not go round."""
import collections
import os
import re
import sys

LARGEST = 30  # percent of all lines of C
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(?:"([^"]+)"|<(kvtile/[^>]+)>)', re.MULTILINE)


def drawing(root):
    """The rooms in the drawing's order, each with its arrows."""
    with open(os.path.join(root, "docs/design.md"), encoding="utf-8") as text:
        block = text.read().split("<!-- rooms -->")
    if len(block) != 3:
        sys.exit("docs/design.md has no drawing between two lines <!-- rooms -->")
    rooms = {}
    for line in block[1].splitlines():
        row = re.match(r"    (\S+)(?: +-> ((?:[\w/]+ )*[\w/]+))?(?:  .*)?$", line)
        if row:
            rooms[row[1]] = row[2].split() if row[2] else []
        elif line.strip():
            sys.exit(f"docs/design.md: a line of the drawing is none: {line}")
    return rooms


def sources(root):
    for top in ("arch", "bench", "include", "kernels", "tests", "tools"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in names:
                if name.endswith((".c", ".h", ".cc", ".def")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def room_of(path, rooms):
    inside = [room for room in rooms if path.startswith(room + "/")]
    if not inside:
        sys.exit(f"{path} is in no room of docs/design.md's drawing")
    return max(inside, key=len)


def circle(edges):
    """A list of nodes that leads from one back to itself, or nothing."""
    done = set()

    def walk(node, path):
        if node in path:
            return path[path.index(node):] + [node]
        if node in done:
            return None
        for other in sorted(edges[node]):
            found = walk(other, path + [node])
            if found:
                return found
        done.add(node)
        return None

    for node in sorted(edges):
        found = walk(node, [])
        if found:
            return found
    return None


def main():
    root = sys.argv[1]
    rooms = drawing(root)
    problems = []
    for place, (room, arrows) in enumerate(rooms.items()):
        above = list(rooms)[:place]
        problems += [f"the drawing has an arrow from {room} to {to}, which is not above it" for to in arrows if to not in above]
    used, lines, parts = set(), collections.Counter(), collections.defaultdict(set)
    for path in sources(root):
        room = room_of(path, rooms)
        with open(os.path.join(root, path), encoding="utf-8") as source:
            text = source.read()
        lines[room] += text.count("\n")
        for quoted, public in INCLUDE.findall(text):
            beside = os.path.normpath(os.path.join(os.path.dirname(path), quoted))
            to = "include/" + public if public else quoted if os.path.exists(os.path.join(root, quoted)) else beside
            if not os.path.exists(os.path.join(root, to)):
                continue  # made by the build, or one of each tier, or another project's
            other = room_of(to, rooms)
            if other != room:
                used.add((room, other))
                if other not in rooms[room]:
                    problems.append(f"{path} includes {to}: {room} has no arrow to {other}")
            elif os.path.splitext(path)[0] != os.path.splitext(to)[0]:
                parts[os.path.splitext(path)[0]].add(os.path.splitext(to)[0])
                parts[os.path.splitext(to)[0]] |= set()
    problems += [f"nothing of {room} includes {to}: an arrow too many" for room in rooms for to in rooms[room] if (room, to) not in used]
    problems += [f"{room} has no code" for room in rooms if not lines[room]]
    around = circle(parts)
    if around:
        problems.append("a circle: " + " -> ".join(around))
    all_lines = sum(lines.values())
    problems += [f"{room} has {n} of {all_lines} lines: more than {LARGEST} %" for room, n in lines.items() if 100 * n > LARGEST * all_lines]
    for problem in problems:
        print(problem, file=sys.stderr)
    for room in rooms:
        print(f"{room:16} {lines[room]:6} lines {100 * lines[room] / all_lines:5.1f} %")
    sys.exit(1 if problems else 0)


main()
