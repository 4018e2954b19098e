"""The generators' own formats, LHE and HepMC3: their libraries take one event at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyhepmc
import pylhe

from gammastar.core.files import atomic
from gammastar.core.records import FloatArray

if TYPE_CHECKING:
    from gammastar.store.events import EventTable


PROTON = 2212
MM = 1e3  # of a metre
PROCESS = 1  # process number in LHE files


def _path_length(events: EventTable) -> FloatArray:
    """Return the proper decay length [mm], shape (n,): distance times mass over momentum; 0 if undecayed."""
    if events.decay is None:
        return np.zeros(len(events))
    distance = np.linalg.norm(events.decay - events.origin, axis=0)
    momentum = np.linalg.norm(events.p4[:3], axis=0)
    proper: FloatArray = np.divide(
        MM * distance * events.mass, momentum, out=np.zeros(len(events)), where=momentum > 0
    )
    return proper


def _daughter_mass(p4: FloatArray) -> FloatArray:
    mass: FloatArray = np.sqrt(np.maximum(p4[3] ** 2 - (p4[:3] ** 2).sum(axis=0), 0.0))
    return mass


def _particle(pdg: int, status: int, mother: int, p4: FloatArray, mass: float, proper: float) -> Any:
    px, py, pz, energy = (float(x) for x in p4)
    momentum = {"px": px, "py": py, "pz": pz, "e": energy, "m": mass}
    unknown = 9.0  # spin
    line: dict[str, Any] = {"color1": 0, "color2": 0, "lifetime": proper, "spin": unknown, **momentum}
    return pylhe.LHEParticle(id=pdg, status=status, mother1=mother, mother2=mother, **line)


def _lhe_events(events: EventTable) -> Iterator[Any]:
    proper = _path_length(events)
    masses = [_daughter_mass(p4) for _, p4 in events.daughters]
    status = 2 if events.daughters else 1
    for i in range(len(events)):
        mass = float(events.mass[i])
        particles = [_particle(events.pdg, status, 0, events.p4[:, i], mass, float(proper[i]))]
        for (pdg, p4), light in zip(events.daughters, masses, strict=True):
            particles.append(_particle(pdg, 1, 1, p4[:, i], float(light[i]), 0.0))
        info = pylhe.LHEEventInfo(
            nparticles=len(particles),
            pid=PROCESS,
            weight=float(events.weight[i]),
            scale=mass,
            aqed=-1.0,
            aqcd=-1.0,
        )
        vertex = " ".join(f"{MM * float(x):.9g}" for x in events.origin[:, i])
        note = f"# event {int(events.number[i])} vertex_mm {vertex}"
        yield pylhe.LHEEvent(eventinfo=info, particles=particles, optional=[note])


def write_lhe(
    path: Path, parts: Iterable[EventTable], beam_energy: float, total: tuple[float, float, float]
) -> None:
    """Write a Les Houches event file; weights add up to the "cross section" of the process (strategy 4).

    `total` holds Σw, Σw² and the largest w.
    """
    error = float(np.sqrt(total[1]))
    init = pylhe.LHEInit(
        initInfo=pylhe.LHEInitInfo(PROTON, PROTON, beam_energy, 0.0, 0, 0, 0, 0, 4, 1),
        procInfo=[pylhe.LHEProcInfo(total[0], error, total[2], PROCESS)],
        generators=[pylhe.LHEGenerator(name="gammastar", version="1", description="from measured dileptons")],
    )
    content = pylhe.LHEFile(
        init=init, events=itertools.chain.from_iterable(map(_lhe_events, parts)), version="3.0"
    )
    with atomic(path) as temporary:
        content.tofile(str(temporary))


def write_hepmc(path: Path, parts: Iterable[EventTable], beam_energy: float) -> None:
    """Write HepMC3 ASCII in GeV and mm: beam proton → particle at its production vertex → daughters.

    The beam carries what the particle does not: energy and momentum are not balanced at the first vertex.
    """
    run = pyhepmc.GenRunInfo()
    run.weight_names = ["weight"]
    with atomic(path) as temporary, pyhepmc.open(str(temporary), "w") as file:
        for part in parts:
            for event in _hepmc_events(part, beam_energy, run):
                file.write(event)


def _hepmc_events(events: EventTable, beam_energy: float, run: Any) -> Iterator[Any]:
    decay = events.origin if events.decay is None else events.decay
    masses = [_daughter_mass(p4) for _, p4 in events.daughters]
    for i in range(len(events)):
        event = pyhepmc.GenEvent(run, pyhepmc.Units.GEV, pyhepmc.Units.MM)
        event.event_number = int(events.number[i])
        event.weights = [float(events.weight[i])]
        beam = pyhepmc.GenParticle(_four(np.array([0.0, 0.0, beam_energy, beam_energy])), PROTON, 4)
        dark = pyhepmc.GenParticle(_four(events.p4[:, i]), events.pdg, 2 if events.daughters else 1)
        dark.generated_mass = float(events.mass[i])
        first = pyhepmc.GenVertex(_place(events.origin[:, i], 0.0))
        first.add_particle_in(beam)
        first.add_particle_out(dark)
        event.add_vertex(first)
        if events.daughters:
            distance = float(np.linalg.norm(decay[:, i] - events.origin[:, i]))
            speed = float(np.linalg.norm(events.p4[:3, i]) / events.p4[3, i])
            second = pyhepmc.GenVertex(_place(decay[:, i], distance / speed if speed > 0 else 0.0))
            second.add_particle_in(dark)
            for (pdg, p4), mass in zip(events.daughters, masses, strict=True):
                lepton = pyhepmc.GenParticle(_four(p4[:, i]), pdg, 1)
                lepton.generated_mass = float(mass[i])
                second.add_particle_out(lepton)
            event.add_vertex(second)
        yield event


def _four(p4: FloatArray) -> Any:
    return pyhepmc.FourVector(*(float(x) for x in p4))


def _place(position: FloatArray, time: float) -> Any:
    """Return a vertex in mm; c·t counts from the production."""
    return pyhepmc.FourVector(*(MM * float(x) for x in position), MM * time)
