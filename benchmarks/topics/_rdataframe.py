"""Three charge histograms of pairs by ROOT's RDataFrame: ``python3 _rdataframe.py FILE``, with PyROOT.

Prints the sums of the histograms, the CPU seconds from the first declaration to the filled histograms, and
the version. One thread; the compilation of the pair loop is included, as every script pays it.
"""

import json
import sys
import time

import ROOT

PAIRS = """
#include <cmath>
struct Pairs { ROOT::RVecD mass, pt; ROOT::RVecI sign; };
Pairs pairs(const ROOT::RVecF &px, const ROOT::RVecF &py, const ROOT::RVecF &pz, const ROOT::RVecI &charge)
{
   const double m = 0.1056583755;
   Pairs found;
   auto energy = [&](size_t i) {
      return std::sqrt(m * m + double(px[i]) * px[i] + double(py[i]) * py[i] + double(pz[i]) * pz[i]);
   };
   for (size_t i = 0; i < px.size(); i++) {
      const double ei = energy(i);
      for (size_t j = i + 1; j < px.size(); j++) {
         const double ej = energy(j);
         const double x = double(px[i]) + px[j], y = double(py[i]) + py[j], z = double(pz[i]) + pz[j];
         found.mass.push_back(std::sqrt((ei + ej) * (ei + ej) - x * x - y * y - z * z));
         found.pt.push_back(std::sqrt(x * x + y * y));
         found.sign.push_back(charge[i] + charge[j]);
      }
   }
   return found;
}
"""
BINS = ("", "", 50, 0.2, 2.2, 10, 0.0, 3.0)


def main(path: str) -> None:
    start = time.process_time()
    ROOT.gInterpreter.Declare(PAIRS)
    frame = ROOT.RDataFrame("events", path)
    frame = frame.Define("found", "pairs(Muon_px, Muon_py, Muon_pz, Muon_charge)")
    hists = []
    for name, sign in (("os", 0), ("pp", 2), ("mm", -2)):
        frame = frame.Define(f"mass_{name}", f"found.mass[found.sign == {sign}]")
        frame = frame.Define(f"pt_{name}", f"found.pt[found.sign == {sign}]")
        hists.append(frame.Histo2D((name, *BINS[1:]), f"mass_{name}", f"pt_{name}"))
    sums = [hist.GetValue().Integral() for hist in hists]
    used = time.process_time() - start
    print(json.dumps({"sums": sums, "seconds": used, "version": str(ROOT.gROOT.GetVersion())}))


main(sys.argv[1])
