"""A server's Prometheus samples, kept apart by engine: with data parallelism each engine has its own gauges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ONLY_ENGINE = "0"  # of a server whose samples carry no engine label


@dataclass(frozen=True)
class Metrics:
    """Values by sample name and engine; other labels (finish reasons, models) are summed."""

    values: dict[str, dict[str, float]]

    @classmethod
    def parse(cls, text: str) -> Metrics:
        """Raises ValueError if the text is not Prometheus'."""
        from prometheus_client.parser import text_string_to_metric_families

        values: dict[str, dict[str, float]] = {}
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    by_engine = values.setdefault(sample.name, {})
                    engine = sample.labels.get("engine", ONLY_ENGINE)
                    by_engine[engine] = by_engine.get(engine, 0.0) + float(sample.value)
        except (KeyError, IndexError, TypeError) as error:  # the parser's own, of a text that is something else
            raise ValueError(str(error)) from error
        return cls(values)

    @property
    def engines(self) -> list[str]:
        """Engines that any sample of vLLM names, in order."""
        found = {engine for name, each in self.values.items() if name.startswith("vllm:") for engine in each}
        return sorted(found, key=lambda engine: (len(engine), engine))

    def has(self, names: Iterable[str]) -> bool:
        return all(name in self.values for name in names)

    def total(self, name: str) -> float:
        """A counter or a gauge of things, over all engines; 0 where there is none."""
        return sum(self.values.get(name, {}).values())

    def of(self, name: str, engine: str) -> float:
        return self.values.get(name, {}).get(engine, 0.0)

    def share(self, name: str) -> float:
        """A gauge that is a share: its mean over the engines that show it, never their sum."""
        each = self.values.get(name, {}).values()
        return sum(each) / len(each) if each else 0.0
