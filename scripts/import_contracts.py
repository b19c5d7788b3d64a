"""A contract for import-linter: a package imports the standard library, itself, and what is named here.

The contracts that import-linter brings along list what is forbidden, and so know
nothing of the dependency that is added tomorrow. This one lists what is allowed.
"""

from __future__ import annotations

import sys
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.domain.imports import Module


class SelfContained(Contract):
    """What `package` and everything below it may import, besides itself and the standard library.

    A name in `may_import` stands for that very module; of a package from outside it stands for
    everything in it.
    """

    type_name = "self_contained"

    package = fields.ModuleField()
    may_import = fields.SetField(subfield=fields.ModuleField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        package = cast("Module", self.package).name  # the fields hold what was read for them
        allowed = {module.name for module in cast("set[Module]", self.may_import)}
        importers = {package} | graph.find_descendants(package)
        wrong = {
            (importer, imported)
            for importer in importers
            for imported in graph.find_modules_directly_imported_by(importer)
            if imported not in importers | allowed and imported not in sys.stdlib_module_names
        }
        return ContractCheck(kept=not wrong, metadata={"wrong": sorted(wrong)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["wrong"]:
            output.print_error(f"- {importer} imports {imported}")
