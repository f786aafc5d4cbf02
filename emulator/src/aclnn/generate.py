"""Derive the C functions and the argument structs of aclnn from signatures.txt (its header describes the format).

Usage: generate.py SOURCE_DIR SHIMS_OUTPUT. Writes SHIMS_OUTPUT and, beside it, aclnn_arguments.h.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

PRODUCTS = {"310P": "kAtlasInference", "A2": "kA2", "A3": "kA3", "A5": "kA5"}

# type in the table -> (C type, member type, ParameterKind)
TYPES = {
    "Tensor": ("const aclTensor*", "TensorView", "kTensor"),
    "DynamicTensor": ("const aclTensor*", "DynamicTensor", "kDynamicTensor"),
    "TensorList": ("const aclTensorList*", "TensorList", "kTensorList"),
    "Scalar": ("const aclScalar*", "Scalar", "kScalar"),
    "ScalarList": ("const aclScalarList*", "ScalarList", "kScalarList"),
    "IntArray": ("const aclIntArray*", "IntArray", "kIntArray"),
    "FloatArray": ("const aclFloatArray*", "FloatArray", "kFloatArray"),
    "BoolArray": ("const aclBoolArray*", "BoolArray", "kBoolArray"),
    "string": ("const char*", "std::string", "kString"),
    "int64": ("int64_t", "int64_t", "kValue"),
    "int32": ("int32_t", "int32_t", "kValue"),
    "int8": ("int8_t", "int8_t", "kValue"),
    "uint64": ("uint64_t", "uint64_t", "kValue"),
    "double": ("double", "double", "kValue"),
    "float": ("float", "float", "kValue"),
    "bool": ("bool", "bool", "kValue"),
    "dtype": ("aclDataType", "aclDataType", "kValue"),
}
TAGS = ("nz", "max", "moves")  # in the order of Operator's members
CLASSES = {
    "float": "kFloating",
    "real": "kReal",
    "number": "kNumber",
    "aten": "kAten",
    "index": "kIndex",
    "bool": "kBoolean",
}
MOST_OTHERS = 3

POINTERS = {"Tensor", "DynamicTensor", "TensorList", "Scalar", "ScalarList", "IntArray", "FloatArray", "BoolArray"}


@dataclass(frozen=True)
class Parameter:
    type: str
    name: str
    optional: bool
    output: bool


@dataclass(frozen=True)
class Demand:
    """A check of phase 1: OUT=A+B (sizes), OUT=1 (one element), or X:CLASS (types)."""

    kind: str  # of C++'s Demand
    subject: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operator:
    name: str
    parameters: tuple[Parameter, ...] | None  # None: CANN exports the name, the emulator knows no more of it
    products: tuple[str, ...] = ()
    accepts_nz: bool = False
    has_max_workspace: bool = False  # exports NAMEGetMaxWorkspaceSize, with the parameters of phase 1
    moves: bool = False  # its results are bits of its inputs
    demands: tuple[Demand, ...] = ()


def parse_parameter(text: str) -> Parameter:
    match = re.fullmatch(r"(\w+)(!?)(\??) (\w+)", text)
    if match is None or match[1] not in TYPES:
        raise ValueError(f"parameter {text!r}: expected TYPE[!][?] NAME, TYPE one of {', '.join(TYPES)}")
    return Parameter(match[1], match[4], optional=bool(match[3]), output=bool(match[2]))


def parse_demand(text: str, parameters: tuple[Parameter, ...]) -> Demand | None:
    """The demand that a tag makes; None for a tag that makes none. Raises ValueError for a name that is no tensor's."""
    match = re.fullmatch(r"(\w+)(=(\w+(?:\+\w+)*)|:(\w+))", text)
    if match is None:
        return None
    subject, _, sizes, of_class = match.groups()
    if of_class is not None:
        if of_class not in CLASSES:
            raise ValueError(f"{text}: expected one of {', '.join(CLASSES)}")
        demand = Demand(CLASSES[of_class], subject)
    else:
        demand = Demand("kOne", subject) if sizes == "1" else Demand("kSizes", subject, tuple(sizes.split("+")))
    tensors = {parameter.name for parameter in parameters if parameter.type == "Tensor"}
    unknown = {demand.subject, *demand.others} - tensors
    if unknown or len(demand.others) > MOST_OTHERS:
        raise ValueError(f"{text}: expected up to {MOST_OTHERS} names of tensors, not {', '.join(sorted(unknown))}")
    return demand


def parse_line(line: str) -> Operator:
    match = re.fullmatch(r"(\w+)(?:\((.*)\) ?(.*))?", line)
    if match is None:
        raise ValueError("expected NAME or NAME(TYPE NAME, ...) PRODUCTS")
    if match[2] is None:
        return Operator(match[1], None)
    tags = match[3].split()
    parameters = tuple(parse_parameter(part) for part in match[2].split(", "))
    demands = {tag: parse_demand(tag, parameters) for tag in tags}
    products = tuple(tag.rstrip("*") for tag in tags if tag not in TAGS and demands[tag] is None)
    unknown = [product for product in products if product not in PRODUCTS]
    if unknown or not products:
        raise ValueError(f"products {tags}: expected some of {', '.join((*PRODUCTS, *TAGS))}")
    made = tuple(demand for demand in demands.values() if demand is not None)
    return Operator(match[1], parameters, products, *(tag in tags for tag in TAGS), made)


def parse_table(path: Path) -> list[Operator]:
    operators: dict[str, Operator] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        try:
            operator = parse_line(line)
        except ValueError as error:
            sys.exit(f"{path}:{number}: {error}")
        if operator.name in operators:
            sys.exit(f"{path}:{number}: {operator.name} is listed twice")
        operators[operator.name] = operator
    return list(operators.values())


def argument_struct(operator: Operator) -> str:
    members = "".join(f"  {TYPES[p.type][1]} {p.name}{{}};\n" for p in operator.parameters)
    return f"struct {operator.name}Args {{\n{members}  static Operator the_operator;\n}};\n"


def boolean(value: bool) -> str:
    return "true" if value else "false"


def definition(operator: Operator) -> str:
    name = operator.name
    rows = "".join(
        f'  {{"{p.name}", ParameterKind::{TYPES[p.type][2]}, {boolean(p.optional or p.type not in POINTERS)}, '
        f"{boolean(p.output)}, offsetof({name}Args, {p.name})}},\n"
        for p in operator.parameters
    )
    products = " | ".join(PRODUCTS[product] for product in operator.products)
    position = {parameter.name: i for i, parameter in enumerate(operator.parameters)}
    demands = ""
    for demand in operator.demands:
        others = ", ".join(str(position[other]) for other in demand.others)
        demands += f"  {{Demand::{demand.kind}, {position[demand.subject]}, {len(demand.others)}, {{{others}}}}},\n"
    table = f"static constexpr Demand k{name}Demands[] = {{\n{demands}}};\n" if demands else ""
    demanded = f"k{name}Demands, {len(operator.demands)}" if demands else "nullptr, 0"
    dynamic = any(p.type == "DynamicTensor" for p in operator.parameters)
    return (
        f"{table}static constexpr Parameter k{name}Parameters[] = {{\n{rows}}};\n"
        f'constinit Operator {name}Args::the_operator = {{"aclnn{name}", {products}, {boolean(operator.accepts_nz)}, '
        f"{boolean(dynamic)}, {boolean(operator.moves)}, k{name}Parameters, std::size(k{name}Parameters), "
        f"{demanded}, sizeof({name}Args), "
        f"&destroy<{name}Args>}};\n"
    )


def shim(operator: Operator) -> str:
    name = operator.name
    second = (
        f"aclError aclnn{name}(void* workspace, uint64_t size, aclOpExecutor* executor, aclrtStream stream) {{\n"
        f'  return launch("aclnn{name}", workspace, size, executor, stream);\n}}\n'
    )
    if operator.parameters is None:
        return f'aclError aclnn{name}GetWorkspaceSize() {{\n  return unimplemented("aclnn{name}");\n}}\n{second}'
    inputs = ", ".join(f"{TYPES[p.type][0]} {p.name}" for p in operator.parameters)
    copies = " ".join(f"assign(a.{p.name}, {p.name});" for p in operator.parameters)
    suffixes = ["GetWorkspaceSize", *(["GetMaxWorkspaceSize"] if operator.has_max_workspace else [])]
    return second + "".join(
        f"aclError aclnn{name}{suffix}({inputs}, uint64_t* workspace_size, aclOpExecutor** executor) {{\n"
        f"  return prepare<{name}Args>({boolean('Max' in suffix)}, workspace_size, executor, "
        f"[&]({name}Args& a) {{ {copies} }});\n}}\n"
        for suffix in suffixes
    )


def write(path: Path, text: str) -> None:
    """A file that says the same keeps its date: every kernel includes the argument structs."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> None:
    source, shims_output = Path(sys.argv[1]), Path(sys.argv[2])
    operators = parse_table(source / "signatures.txt")
    known = [operator for operator in operators if operator.parameters is not None]
    header = "// Derived from signatures.txt by generate.py.\n"
    write(
        shims_output.parent / "aclnn_arguments.h",
        header
        + '#pragma once\n#include "aclnn/operator.h"\nnamespace emulator::aclnn {\n'
        + "".join(argument_struct(operator) for operator in known)
        + "}  // namespace emulator::aclnn\n",
    )
    write(
        shims_output,
        header + '#include <cstddef>\n#include <iterator>\n#include "aclnn/launch.h"\n#include "aclnn_arguments.h"\n'
        "namespace emulator::aclnn {\n"
        + "".join(definition(operator) for operator in known)
        + 'extern "C" {\n'
        + "".join(shim(operator) for operator in operators)
        + '}  // extern "C"\n}  // namespace emulator::aclnn\n',
    )


if __name__ == "__main__":
    main()
