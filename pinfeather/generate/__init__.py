"""A synthetic catalogue that a person would believe: pins, boards, searches and judged pairs."""

from pinfeather.generate.catalogue import NOW, TABLES, GenerateReport, generate_catalogue

__all__ = ["NOW", "TABLES", "GenerateReport", "generate_catalogue"]
