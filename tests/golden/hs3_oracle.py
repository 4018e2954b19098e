"""HS3 with ROOT, in a process of its own (it leaves without unloading, because ROOT may crash there).

``python hs3_oracle.py write FILE POINTS Poisson|Gaussian``: export a HistFactory model of ROOT with that kind
of staterror. ``python hs3_oracle.py read FILE POINTS``: import a document. Both print −ln L at a list of
points (JSON file) as JSON on the last line; points that do not exist count as none. ``fit FILE``: import,
minimise, and print the parameter of interest, its error and −ln L there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ROOT


def histogram(name: str, values: list[float], errors: list[float] | None = None) -> ROOT.TH1D:
    found = ROOT.TH1D(name, name, len(values), 0, len(values))
    for i, value in enumerate(values):
        found.SetBinContent(i + 1, value)
        found.SetBinError(i + 1, errors[i] if errors else 0.0)
    ROOT.SetOwnership(found, False)
    return found


def sample(
    name: str, values: list[float], errors: list[float] | None = None
) -> ROOT.RooStats.HistFactory.Sample:
    made = ROOT.RooStats.HistFactory.Sample(name)
    made.SetNormalizeByTheory(False)
    made.SetHisto(histogram(name, values, errors))
    return made


def write(path: str, points: str, staterror: str) -> list[float]:
    factory = ROOT.RooStats.HistFactory
    measurement = factory.Measurement("limit", "limit")
    measurement.SetPOI("mu")
    measurement.SetLumi(1.0)
    measurement.SetLumiRelErr(0.1)
    measurement.AddConstantParam("Lumi")
    channel = factory.Channel("one")
    channel.SetData(histogram("data", [3.0, 4.0]))
    signal = sample("signal", [1.0, 2.0])
    signal.AddNormFactor("mu", 1, 0, 10)
    signal.AddOverallSys("pot", 1 / 1.2, 1.2)
    background = sample("background", [2.0, 3.0])
    background.AddOverallSys("norm", 0.8, 1.3)
    shape = factory.HistoSys()
    shape.SetName("shape")
    shape.SetHistoLow(histogram("low", [1.8, 3.2]))
    shape.SetHistoHigh(histogram("high", [2.3, 2.8]))
    background.AddHistoSys(shape)
    counts = factory.ShapeSys()
    counts.SetName("like_sign")
    counts.SetConstraintType(factory.Constraint.Poisson)
    counts.SetErrorHist(histogram("error", [0.2, 0.1]))
    background.AddShapeSys(counts)
    other = sample("other", [1.0, 1.5], [0.1, 0.15])
    other.ActivateStatError()
    for part in (signal, background, other):
        channel.AddSample(part)
    channel.SetStatErrorConfig(0.0, staterror)
    measurement.AddChannel(channel)
    workspace = factory.MakeModelAndMeasurementFast(measurement)
    ROOT.RooJSONFactoryWSTool(workspace).exportJSON(path)
    return evaluate(workspace, points)


def read(path: str, points: str) -> list[float]:
    w = ROOT.RooWorkspace("w")
    ROOT.RooJSONFactoryWSTool(w).importJSON(path)
    return evaluate(w, points)


def likelihood(w: ROOT.RooWorkspace) -> ROOT.RooAbsReal:
    measured = ROOT.RooArgSet(*(v for v in w.allVars() if v.GetName().startswith("nom")))
    return (
        w.obj("ModelConfig")
        .GetPdf()
        .createNLL(
            w.data("obsData"),
            ROOT.RooFit.EvalBackend("legacy"),
            ROOT.RooFit.GlobalObservables(measured),
            ROOT.RooFit.Offset("none"),
        )
    )


def fit(path: str) -> list[float]:
    w = ROOT.RooWorkspace("w")
    ROOT.RooJSONFactoryWSTool(w).importJSON(path)
    nll = likelihood(w)
    minimiser = ROOT.RooMinimizer(nll)
    minimiser.setPrintLevel(-1)
    minimiser.setStrategy(2)
    for _ in range(2):  # the second call starts where the first one stopped
        minimiser.minimize("Minuit2")
    mu = w.obj("ModelConfig").GetParametersOfInterest().first()
    return [mu.getVal(), mu.getError(), nll.getVal()]


def evaluate(w: ROOT.RooWorkspace, points: str) -> list[float]:
    if not Path(points).is_file():
        return []
    nll = likelihood(w)
    found = []
    for point in json.loads(Path(points).read_text("utf-8")):
        for name, value in point.items():
            variable = w.var(name)
            variable.setRange(min(variable.getMin(), value - 1), max(variable.getMax(), value + 1))
            variable.setVal(value)
        found.append(nll.getVal())
    return found


if __name__ == "__main__":
    ROOT.RooMsgService.instance().setGlobalKillBelow(ROOT.RooFit.ERROR)
    what, *arguments = sys.argv[1:]
    result = {"write": write, "read": read, "fit": fit}[what](*arguments)
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)
