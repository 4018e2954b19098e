"""CLs of two binned channels with four nuisances from RooStats, as JSON on the last line.

Run as its own process, ``python roostats_oracle.py TOYS ratio|qtilde [randomised|fixed]``, by an interpreter
that has ROOT: it leaves without unloading, because ROOT may crash there. Test statistics of RooStats are half
of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time

import ROOT

SIGNAL = ((0.5, 1.5, 0.5), (0.3, 0.9, 0.3))
BACKGROUND = ((1.0, 0.6, 0.4), (0.5, 0.5, 1.0))
OBSERVED = ((1, 1, 0), (0, 1, 1))
SIGNAL_SIGMA = {"pot": 0.1823215568, "efficiency": 0.03}
BACKGROUND_SIGMA = ({"b_one": 0.3}, {"b_two": 0.5})


def model() -> tuple[ROOT.RooWorkspace, ROOT.RooArgSet, list[str]]:
    w = ROOT.RooWorkspace("w")
    w.factory("mu[1,0,20]")
    names = [*SIGNAL_SIGMA, *BACKGROUND_SIGMA[0], *BACKGROUND_SIGMA[1]]
    for name in names:
        w.factory(f"Gaussian::constraint_{name}(aux_{name}[0,-10,10],{name}[0,-5,5],1)")
        w.var(f"aux_{name}").setConstant(True)
    parts, counts = [f"constraint_{name}" for name in names], ROOT.RooArgSet()
    pull = "+".join(f"{sigma}*{name}" for name, sigma in SIGNAL_SIGMA.items())
    for c in range(2):
        ((own, sigma),) = BACKGROUND_SIGMA[c].items()
        for k in range(3):
            rate = f"mu*{SIGNAL[c][k]}*exp({pull})+{BACKGROUND[c][k]}*exp({sigma}*{own})"
            w.factory(f"expr::rate_{c}{k}('{rate}',mu,{','.join(SIGNAL_SIGMA)},{own})")
            w.factory(f"Poisson::count_{c}{k}(n_{c}{k}[{OBSERVED[c][k]},0,200],rate_{c}{k})")
            parts.append(f"count_{c}{k}")
            counts.add(w.var(f"n_{c}{k}"))
    w.factory(f"PROD::model({','.join(parts)})")
    return w, counts, names


def main() -> None:
    toys, statistic = int(sys.argv[1]), sys.argv[2]
    auxiliaries = sys.argv[3] if len(sys.argv) > 3 else "randomised"
    ROOT.RooMsgService.instance().setGlobalKillBelow(ROOT.RooFit.ERROR)
    ROOT.RooRandom.randomGenerator().SetSeed(7)
    w, counts, names = model()
    data = ROOT.RooDataSet("data", "", counts)
    data.add(counts)
    configs = []
    for label, strength in (("sb", 1.0), ("b", 0.0)):
        config = ROOT.RooStats.ModelConfig(label, w)
        config.SetPdf(w.pdf("model"))
        config.SetParametersOfInterest(ROOT.RooArgSet(w.var("mu")))
        config.SetObservables(counts)
        config.SetNuisanceParameters(ROOT.RooArgSet(*(w.var(name) for name in names)))
        if auxiliaries == "randomised":  # otherwise the measurements stay as observed
            config.SetGlobalObservables(ROOT.RooArgSet(*(w.var(f"aux_{name}") for name in names)))
        w.var("mu").setVal(strength)
        config.SetSnapshot(ROOT.RooArgSet(w.var("mu")))
        configs.append(config)
    sb, b = configs
    calculator = ROOT.RooStats.FrequentistCalculator(data, b, sb)
    calculator.SetToys(toys, toys)
    if statistic == "ratio":
        stat = ROOT.RooStats.RatioOfProfiledLikelihoodsTestStat(sb.GetPdf(), b.GetPdf(), b.GetSnapshot())
        stat.SetSubtractMLE(False)
    else:
        stat = ROOT.RooStats.ProfileLikelihoodTestStat(sb.GetPdf())
        stat.SetOneSided(True)
    sampler = calculator.GetTestStatSampler()
    sampler.SetTestStatistic(stat)
    sampler.SetNEventsPerToy(1)
    start = time.process_time()
    result = calculator.GetHypoTest()
    seconds = time.process_time() - start
    result.SetBackgroundAsAlt(True)
    result.SetPValueIsRightTail(True)
    found = {"cls": result.CLs(), "error": result.CLsError(), "q": 2 * result.GetTestStatisticData()}
    sys.stdout.write(json.dumps(found | {"rate": 2 * toys / seconds}) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
