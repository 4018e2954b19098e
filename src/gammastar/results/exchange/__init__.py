"""Rate and kinematics of a run in the files of other tools: FORESEE, ALPINIST, EventCalc, event formats."""

from gammastar.results.exchange.decays import Point, Stand, write_decays
from gammastar.results.exchange.tables import Produced, write_alpinist, write_eventcalc, write_foresee

__all__ = ["Point", "Produced", "Stand", "write_alpinist", "write_decays", "write_eventcalc", "write_foresee"]
