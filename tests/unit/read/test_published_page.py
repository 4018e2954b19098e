"""What the page on published tables shows is what happens."""

import re
import tomllib

from builders import ROOT
from click.testing import CliRunner

from gammastar import cli
from gammastar.config import Steering
from gammastar.config.checks import check_steering

PAGE = (ROOT / "docs" / "howto" / "published_tables.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_worked_example_is_a_steering_file_without_errors(tmp_path):
    (text,) = blocks("toml")
    findings = check_steering(Steering.model_validate(tomllib.loads(text)), tmp_path)
    assert not [finding for finding in findings if finding.level == "error"]
    for note in re.findall(r"^    published table: (.*)$", PAGE, re.MULTILINE):
        assert note in [finding.message for finding in findings]


def test_its_command_and_its_code_run(capsys):
    (command,) = blocks("sh")
    words = command.split()
    assert words[0] == "gammastar"
    result = CliRunner().invoke(cli.app, [words[1], str(ROOT / words[2])])
    assert result.exit_code == 0
    (code,) = blocks("python")
    exec(code, {})  # noqa: S102 - the code of our own page
    assert "table, stat" in capsys.readouterr().out
