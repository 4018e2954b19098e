"""Limits of others for ``data/bounds/``: ``python3 analysis/bounds/collect.py FORESEE SENSCALC``.

FORESEE: folder of KlingFelix/FORESEE at commit 2d6431f (MIT); SENSCALC: of maksymovchynnikov/SensCalc at
1e66be9 (BSD-3-Clause); PHENIX comes from ``data/published/`` (CC0). ``curves.toml`` says what is taken.
Curves of FORESEE that equal those of Darkcast (A1, BaBar, CHARM, E137, E141, KLOE, LHCb, NA48, NA64, NuCal,
Orsay) are under the GPL and stay out.
"""

from __future__ import annotations

import csv
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "data"
COUPLING = {"dark_photon": "kinetic mixing epsilon, not squared", "millicharge": "charge Q over e"}
SOURCES = {
    "foresee": {
        "author": "F. Kling, S. Trojanowski",
        "title": "Forward experiment sensitivity estimator for the LHC and future hadron colliders",
        "journal": "Phys. Rev. D 104 (2021) 035012",
        "reference": "arXiv:2105.07077",
        "source": "FORESEE (arXiv:2105.07077), KlingFelix/FORESEE at commit 2d6431f, ",
        "digitised": "authors of FORESEE",
        "licence": "MIT",
    },
    "senscalc": {
        "author": "M. Ovchynnikov, J.-L. Tastet, O. Mikulenko, K. Bondarenko",
        "title": "Sensitivities to feebly interacting particles: public and unified calculations",
        "journal": "Phys. Rev. D 108 (2023) 075028",
        "reference": "arXiv:2305.13383",
        "source": "SensCalc (arXiv:2305.13383), maksymovchynnikov/SensCalc at commit 1e66be9, ",
        "digitised": "authors of SensCalc",
        "licence": "BSD-3-Clause",
    },
}
PHENIX = {
    "name": "PHENIX",
    "plane": "dark_photon",
    "kind": "observed",
    "closed": False,
    "author": "PHENIX Collaboration",
    "title": "Search for dark photons from neutral meson decays in p+p and d+Au collisions at 200 GeV",
    "journal": "Phys. Rev. C 91 (2015) 031901",
    "reference": "arXiv:1409.0851",
    "attribution": "the collaboration's own table",
    "digitised": "nobody: numbers of the collaboration",
    "source": "HEPData ins1313628, figure 5",
    "licence": "CC0-1.0",
}
Points = list[tuple[float, float]]


def bibtex(stem: str, paper: dict[str, str]) -> str:
    """Return an entry for a paper."""
    authors = paper["author"].replace(", ", " and ").replace(" et al.", " and others")
    authors = f"{{{authors}}}" if "Collaboration" in authors else authors
    number = paper["reference"].removeprefix("arXiv:").partition(",")[0]
    fields = {"author": authors, "title": f"{{{paper['title']}}}", "note": paper["journal"]}
    fields |= {"eprint": number, "archivePrefix": "arXiv"}
    return f"@article{{{stem}, {', '.join(f'{key} = {{{value}}}' for key, value in fields.items())}}}"


def write(stem: str, about: dict[str, str], points: Points, changes: str) -> None:
    """Write the file of a limit."""
    source = SOURCES.get(about.get("from", ""), {})
    paper = source | about
    own = "author" in about
    cited = "" if own else f"{about['kind']} as distributed by "
    texts = {key: about[key] for key in ("name", "plane", "kind")}
    texts |= {"citation": f"{cited}{paper['author']}, {paper['journal']}", "reference": paper["reference"]}
    texts |= {"bibtex": bibtex(stem, paper), "attribution": about["attribution"]}
    texts |= {"digitised": paper["digitised"], "source": paper["source"] + about.get("file", "")}
    texts |= {"licence": paper["licence"], "changes": changes}
    lines = [f"# {about['name']}, {about['kind']}: written by analysis/bounds/collect.py."]
    lines += [f'{key} = "{value}"' for key, value in texts.items()]
    lines[2] += f" # {COUPLING[about['plane']]}"
    lines += [f"closed = {str(about['closed']).lower()}"]
    for key, column in (("mass", 0), ("coupling", 1)):
        values = [f"{point[column]:.6g}" for point in points]
        lines += [f"{key} = [{' # GeV' if column == 0 else ''}"]
        lines += [f"  {', '.join(values[i : i + 10])}," for i in range(0, len(values), 10)] + ["]"]
    (DATA / "bounds" / f"{stem}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def numbers(path: Path) -> Points:
    """Return the first two columns of a file of points."""
    rows = [line.replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
    return [(float(row[0]), float(row[1])) for row in rows if row and row[0][0] in "0123456789."]


def phenix() -> Points:
    """Return the limit of PHENIX on ε, from its ε² at 90 % CL in bins of mass [MeV]."""
    table = (DATA / "published" / "phenix_2015" / "fig5.csv").read_text(encoding="utf-8")
    rows = csv.reader(line for line in table.splitlines() if line[0].isdigit())
    return [(5e-4 * (float(low) + float(high)), float(square) ** 0.5) for low, high, square, *_ in rows]


def main(**folders: Path) -> None:
    """Write all files."""
    for stem, about in tomllib.loads((HERE / "curves.toml").read_text(encoding="utf-8")).items():
        points, changes = numbers(folders[about["from"]] / about["file"]), "six digits"
        if about["from"] == "senscalc":
            points, changes = (
                [(mass, square**0.5) for mass, square in points],
                "square root of epsilon^2; six digits",
            )
        if stem == "millicharge_lep_2000":
            points = [point for point in points if point[0] >= 1.78 and point[1] < 0.3]
            changes += "; points below 1.78 GeV left out"
        if stem == "dark_photon_lhcb_mumu_prompt_projection":
            points, changes = points[:-1], f"{changes}; without the last vertex, which only closes the line"
        write(stem, about, points, changes)
    changes = "first column, 90 % CL; square root; middle of the bins of mass in GeV"
    write("dark_photon_phenix_2014", PHENIX, phenix(), changes)


if __name__ == "__main__":
    main(foresee=Path(sys.argv[1]), senscalc=Path(sys.argv[2]))
