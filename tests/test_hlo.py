"""Costs read from small HLO texts, by hand."""

import pytest

from invariance_jax import hlo

HEAD = "HloModule jit_step, is_scheduled=true\n"

ENTRY = """
ENTRY %main (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="x(y)"}
LINES
  ROOT %out = f32[8,128]{1,0:T(8,128)} copy(%p), backend_config={"estimated_cycles":"5"}
}
"""
# 8 x 128 float32.
SIZE = 4096


def costs(*lines, computations=""):
    body = "\n".join(f"  {line}" for line in lines)
    return hlo.costs(hlo.parse(HEAD + computations + ENTRY.replace("LINES", body)))


def test_sizes_of_types():
    assert hlo.size_in_bytes("f32[]") == 4
    assert (
        hlo.size_in_bytes("(s32[2]{0}, /*index=1*/(bf16[3,4]{1,0:T(8,128)(2,1)}, pred[5]))") == 37
    )
    assert hlo.size_in_bytes("s4[6]") == 3
    in_both = "(f32[2]{0:T(128)S(1)}, f32[4]{0:T(128)}, u32[]{:S(2)})"
    assert hlo.size_in_bytes(in_both, main_memory_only=True) == 16


def test_cycles_and_bytes_add_up():
    found = costs(
        "%a = f32[8,128]{1,0} fusion(%p, %p), kind=kLoop, calls=%f, backend_config="
        '{"flag_configs":[],"estimated_cycles":"100"}',
        computations="""
%f (q: f32[8,128], r: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %r = f32[8,128]{1,0} parameter(1)
  ROOT %s = f32[8,128]{1,0} add(%q, %r), backend_config={"estimated_cycles":"7"}
}
""",
    )
    # What is fused has been counted with its fusion.
    assert found.cycles == 105
    assert found.bytes == (3 + 2) * SIZE
    assert not found.uncounted and not found.collectives and not found.rows


LOOP = """
%body (t: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %t = (s32[], f32[8,128]{1,0}) parameter(0)
  %x = f32[8,128]{1,0} get-tuple-element(%t), index=1
  %n = f32[8,128]{1,0} negate(%x), backend_config={"estimated_cycles":"10"}
  %r = f32[8,128]{1,0} all-reduce(%n), replica_groups=[4,8]<=[32], to_apply=%add
  ROOT %u = (s32[], f32[8,128]{1,0}) tuple(%x, %r)
}
%cond (t: (s32[], f32[8,128])) -> pred[] {
  %t = (s32[], f32[8,128]{1,0}) parameter(0)
  ROOT %c = pred[] constant(false)
}
"""


COUNTS = """  %i = s32[] get-tuple-element(%t), index=0
  %k = s32[]{:T(128)} constant(7)
  ROOT %c = pred[] compare(%i, %k), direction=LT"""


@pytest.mark.parametrize(
    ("trips", "condition", "turns", "endless"),
    [
        (', backend_config={"known_trip_count":{"n":"12"}}', None, 12, 0),
        ("", COUNTS, 7, 0),
        ("", COUNTS.replace("LT", "NE"), 1, 1),
        ("", None, 1, 1),
    ],
)
def test_loops_count_every_turn(trips, condition, turns, endless):
    unknown = "  ROOT %c = pred[] constant(false)"
    found = costs(
        "%w = (s32[], f32[8,128]{1,0}) while(%p), condition=%cond, body=%body" + trips,
        computations=LOOP.replace(unknown, condition or unknown),
    )
    assert found.cycles == 5 + 10 * turns
    assert found.collectives == (hlo.Collective("all-reduce", 8, False, SIZE, turns),)
    assert found.endless_loops == endless


def test_branches_are_equally_likely():
    branches = "".join(
        f"""
%branch{number} (t: f32[8,128]) -> f32[8,128] {{
  %t = f32[8,128]{{1,0}} parameter(0)
  ROOT %n = f32[8,128]{{1,0}} negate(%t), backend_config={{"estimated_cycles":"{cycles}"}}
}}
"""
        for number, cycles in enumerate((10, 20, 60))
    )
    found = costs(
        "%b = f32[8,128]{1,0} conditional(%p, %p, %p, %p), "
        "branch_computations={%branch0, %branch1, %branch2}",
        computations=branches,
    )
    assert found.cycles == 5 + 30
    assert found.bytes == pytest.approx(4 * SIZE)


def test_collectives_have_sizes_groups_and_kinds():
    found = costs(
        "%g = f32[64,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}",
        "%s = (f32[8,128]{1,0}, f32[16,128]{1,0}) all-gather-start(%p), "
        "replica_groups=mesh['data'=4,'model'=2] {'model'}, dimensions={0}",
        "%d = f32[16,128]{1,0} all-gather-done(%s)",
        "%r = f32[8,128]{1,0} all-reduce-start(%p), replica_groups=mesh['data'=4,'model'=2] "
        "{'data','model'}, to_apply=%add",
        "%q = f32[8,128]{1,0} all-reduce-done(%r)",
        "%k = f32[4,128]{1,0} reduce-scatter(%p), replica_groups=mesh['data'=256] "
        "{'data':(16)2}, to_apply=%add",
        "%c = f32[8,128]{1,0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}",
        "%e = f32[8,128]{1,0} all-reduce(%p), replica_groups={}, to_apply=%add",
        "%a = ((f32[8,128]{1,0}), f32[4,128]{1,0}) async-start(%p), calls=%wrapped",
        computations="""
%wrapped (q: f32[8,128]) -> f32[4,128] {
  %q = f32[8,128]{1,0} parameter(0)
  ROOT %r = f32[4,128]{1,0} reduce-scatter(%q), replica_groups=[2,2]<=[2,2]T(1,0), to_apply=%add
}
""",
    )
    assert {
        (each.kind, each.group_size, each.is_async, each.bytes) for each in found.collectives
    } == {
        ("all-gather", 8, False, 8 * SIZE),
        ("all-gather", 2, True, 2 * SIZE),
        ("all-reduce", 8, True, SIZE),
        ("reduce-scatter", 2, False, SIZE),
        ("collective-permute", 2, False, SIZE),
        ("all-reduce", 0, False, SIZE),
        ("reduce-scatter", 2, True, SIZE),
    }
    assert found.collectives[0].bytes == 8 * SIZE and not found.uncounted


PART = """
%NAME (q: f32[8,128]) -> f32[64,128] {
  %q = f32[8,128]{1,0} parameter(0)
  ROOT %g = f32[64,128]{1,0} all-gather(%q), channel_id=CHANNEL, replica_groups=[4,8]<=[32]
}
"""


def test_one_collective_spread_over_fusions_counts_once_and_is_async():
    parts = [("begin", 3), ("between", 3), ("end", 3), ("other", 4)]
    found = costs(
        *(
            f"%{name} = f32[64,128]{{1,0}} fusion(%p), kind=kCustom, calls=%of_{name}"
            for name, _ in parts
        ),
        computations="".join(
            PART.replace("NAME", f"of_{name}").replace("CHANNEL", str(channel))
            for name, channel in parts
        ),
    )
    kinds = {(each.is_async, each.count) for each in found.collectives}
    assert kinds == {(True, 1), (False, 1)}
    assert {each.bytes for each in found.collectives} == {8 * SIZE}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['run'=2,'data'=4] {'data'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=mesh['run'=2,'data'=4] {'run'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['run'=2,'data'=4] {'data':(2)2}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups=mesh['run'=2,'data'=4] {'data':(1)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}, to_apply=%add", []),
    ],
)
def test_groups_hold_these_devices(text, groups):
    line = hlo.Instruction("r", "f32[8]", "all-reduce", (), f"%p {text}, channel_id=1", False)
    assert hlo.groups(line) == groups
    module = hlo.Module({"main": (line,)}, "main")
    within = bool(groups) and all(len({place // 4 for place in each}) == 1 for each in groups)
    assert hlo.crossing(module, 4) == ([] if within else ["r"])
    assert hlo.crossing(module, 1) == ["r"]


def test_look_ups_and_what_has_no_estimate():
    found = costs(
        "%i = s32[100,1]{1,0} constant({...})",
        "%g = f32[100,128]{1,0} gather(%p, %i), offset_dims={1}, index_vector_dim=1, "
        "slice_sizes={1,128}",
        "%u = f32[100,128]{1,0} scatter(%p, %i, %g), index_vector_dim=1, to_apply=%add",
        "%b = f32[8,128]{1,0} select-and-scatter(%p, %p), select=%ge, scatter=%add",
    )
    assert found.rows == 200
    assert found.uncounted["select-and-scatter"] == 3 * SIZE


def test_slices_count_as_slices():
    found = costs(
        "%o = s32[]{:T(128)} constant(0)",
        "%a = f32[1,128]{1,0} fusion(%p, %o), kind=kLoop, calls=%part, backend_config="
        '{"estimated_cycles":"1"}',
        "%b = f32[8,128]{1,0} fusion(%p, %a), kind=kLoop, calls=%put, backend_config="
        '{"estimated_cycles":"1"}',
        "%s = ((f32[8,128]{1,0}), f32[2,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%p)",
        "%c = (f32[8,128]{1,0:S(1)}, f32[8,128]{1,0}, u32[]{:S(2)}) copy-start(%p)",
        computations="""
%part (q: f32[8,128], r: s32[]) -> f32[1,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %r = s32[] parameter(1)
  ROOT %s = f32[1,128]{1,0} dynamic-slice(%q, %r, %r), dynamic_slice_sizes={1,128}
}
%put (q: f32[8,128], u: f32[1,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %u = f32[1,128]{1,0} parameter(1)
  ROOT %s = f32[8,128]{1,0} dynamic-update-slice(%q, %u, %u)
}
""",
    )
    row = SIZE // 8
    cut = row + row + 4  # read, written, and where
    put = row + row
    started = 2 * row + 4  # to another memory, with the mark of its end
    copied = SIZE + 2 * SIZE
    assert found.bytes == cut + put + started + copied


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no HLO module"):
        hlo.parse("something else")
