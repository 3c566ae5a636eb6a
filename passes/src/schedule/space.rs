//! The legal schedules of a kernel: what a tuner searches.
//!
//! The product of the choices that shape a nest (which dimension lanes run along and how many, tile heights, visiting order,
//! how many dimensions the parallel loop takes, chunks, what is kept and what computed again), each with the knobs
//! at their defaults; and the chosen schedule with other knobs. A kernel that splits varies one stage at a time. Whatever
//! is listed has been applied: it is legal.

use super::apply::pieces;
use super::choose::choose_flat;
use super::cpu::tile::Tiling;
use super::flat::Flat;
use super::knobs::{self, Family, grain};
use super::parts::{self, Part};
use super::{Machine, Schedule, inline, stretch};
use brolga_ir::loops::PANEL;
use brolga_ir::schedule::{Copy, GpuPoints, GpuRows, GpuTile, Order, Points, Rows, Tile, Tree, Way};
use brolga_ir::{CpuTarget, TileKind, structured};

/// Lanes of vectors to try.
const LANES: [i64; 5] = [1, 4, 8, 16, 32];
/// Chunks of a long dimension to try.
const CHUNKS: [i64; 3] = [1024, 4096, 16384];
/// Points side by side to try.
const ACROSS: [i64; 3] = [0, 2, 4];
/// The most schedules of a kernel, or of a stage that splits off.
const MOST: usize = 512;

/// The legal schedules of a kernel, the chosen one first.
pub fn space(kernel: &structured::Kernel, machine: &Machine) -> Vec<Schedule> {
    let flat = Flat::new(kernel);
    let chosen = choose_flat(kernel, &flat, machine);
    let mut all = vec![chosen.clone()];
    match &chosen {
        Schedule::Versions(both) => {
            let plain = stretch::plain(kernel, &flat);
            let first = plain.as_ref().map_or(&flat, |p| &p.flat);
            for (i, version) in [first, &flat].into_iter().enumerate() {
                for s in variants(version, machine, &both[i]) {
                    let mut other = both.clone();
                    other[i] = s;
                    all.push(Schedule::Versions(other));
                }
            }
            all.extend(both.iter().cloned());
        }
        _ => all.extend(variants(&flat, machine, &chosen)),
    }
    let mut out: Vec<Schedule> = vec![];
    for s in all {
        if !out.contains(&s) && pieces(kernel, &flat, &s).is_ok() {
            out.push(s);
        }
    }
    out
}

/// What may be legal for a kernel, one part at a time where it splits.
fn variants(flat: &Flat, machine: &Machine, chosen: &Schedule) -> Vec<Schedule> {
    let Schedule::Split(chosen) = chosen else {
        return candidates(&parts::whole(flat), machine, chosen);
    };
    let mut all = vec![];
    for (i, (part, here)) in parts::split(flat).iter().zip(chosen).enumerate() {
        for s in candidates(part, machine, here) {
            let mut other = chosen.clone();
            other[i] = s;
            all.push(Schedule::Split(other));
        }
    }
    all
}

/// What may be legal for a part.
fn candidates(part: &Part, machine: &Machine, chosen: &Schedule) -> Vec<Schedule> {
    let all = match machine {
        Machine::Cpu(target) => cpu(&part.flat, target, chosen),
        Machine::Gpu(_) => gpu(&part.flat),
    };
    // Of too many, some of every region.
    let step = all.len().div_ceil(MOST).max(1);
    all.into_iter().step_by(step).collect()
}

fn cpu(flat: &Flat, target: &CpuTarget, chosen: &Schedule) -> Vec<Schedule> {
    let [default, of_rows] = [Family::Points, Family::Rows].map(|f| knobs::defaults(target, f));
    let mut out = knobs::variants(chosen);
    for left in [0, 1] {
        let Ok(tiling) = Tiling::best(flat, left, target.tile) else {
            continue;
        };
        let height = i64::from(target.tile.shape(tiling.kind(), PANEL as u32).rows);
        for rows in heights(height) {
            for (order, ahead) in [(Order::Panel, false), (Order::Row, false), (Order::Row, true)] {
                for (lanes, direct) in [(16, true), (16, false), (8, false), (32, false)] {
                    out.push(Schedule::Tile(Tile {
                        left,
                        rows,
                        order,
                        lanes,
                        direct,
                        ahead,
                        pairs: tiling.kind() == TileKind::Bf16Pairs,
                        resident: match order {
                            Order::Panel => 0,
                            Order::Row => tiling.resident(rows, target.l2_bytes),
                        },
                        knobs: default.clone(),
                    }));
                }
            }
        }
    }
    if let Schedule::Tree(chosen) = chosen {
        let height = i64::from(target.tile.shape(TileKind::F32, PANEL as u32).rows);
        for rows in [1].into_iter().chain(heights(height)) {
            out.push(Schedule::Tree(Tree { rows, ..chosen.clone() }));
        }
        for (i, way) in chosen.stages.iter().enumerate() {
            for other in LANES
                .map(Way::Lanes)
                .into_iter()
                .chain([Way::Tile, Way::Shared])
                .filter(|w| w != way)
            {
                let mut tree = chosen.clone();
                tree.stages[i] = other;
                out.push(Schedule::Tree(tree));
            }
        }
        return out;
    }
    let dims = flat.outer.len() as i64;
    for inline in inlinings(flat) {
        for lanes in LANES {
            for outside in 0..=dims {
                out.push(Schedule::Rows(Rows {
                    lanes,
                    outside,
                    inline: inline.clone(),
                    knobs: of_rows.clone(),
                }));
            }
        }
        for along in 0..dims.max(1) {
            let extent = flat.outer.get(along as usize).and_then(|(_, d)| d.as_const());
            let chunks = CHUNKS.into_iter().filter(|c| extent.is_none_or(|n| n > *c));
            let chunks: Vec<i64> = [0].into_iter().chain(chunks).collect();
            for lanes in LANES {
                for outside in 0..dims.max(1) {
                    for &chunk in &chunks {
                        // There is a loop inside but for the outermost ones and that of the vectors.
                        let across = if outside + 1 < dims { &ACROSS[..] } else { &ACROSS[..1] };
                        for &across in across {
                            out.push(Schedule::Points(Points {
                                along,
                                lanes,
                                outside,
                                chunk,
                                across,
                                inline: inline.clone(),
                                knobs: default.clone(),
                            }));
                        }
                    }
                }
            }
        }
    }
    out.extend(grain::GRAIN.tries.iter().map(|&grain| Schedule::Copy(Copy { grain })));
    out
}

/// Heights of tiles: what a kernel of the family keeps in registers, less, and what is cut into several.
fn heights(most: i64) -> Vec<i64> {
    let mut out: Vec<i64> = (1..=most).rev().step_by(2).collect();
    out.extend([2 * most, 4 * most]);
    out
}

/// Which locals are computed again: none, all that can be, and each alone.
fn inlinings(flat: &Flat) -> Vec<Vec<u32>> {
    let can: Vec<u32> = (0..flat.locals.len() as u32)
        .filter(|&l| inline::maker(flat, l).is_ok())
        .collect();
    let mut out = vec![vec![], can.clone()];
    out.extend(can.into_iter().map(|l| vec![l]));
    out.dedup();
    out
}

fn gpu(flat: &Flat) -> Vec<Schedule> {
    let mut out = vec![];
    for left in [0, 1] {
        for (rows, columns) in [(32, 32), (64, 32), (32, 64), (64, 64), (128, 64), (128, 128)] {
            for depth in [8, 16, 32] {
                for (row_threads, column_threads) in [(8, 8), (8, 16), (16, 16)] {
                    out.push(Schedule::GpuTile(GpuTile {
                        left,
                        rows,
                        columns,
                        depth,
                        row_threads,
                        column_threads,
                    }));
                }
            }
        }
    }
    for inline in inlinings(flat) {
        for lanes in [32, 64, 128, 256, 512] {
            for slots in [1, 2, 4, 8] {
                out.push(Schedule::GpuRows(GpuRows {
                    lanes,
                    slots,
                    inline: inline.clone(),
                }));
            }
        }
        out.extend([64, 128, 256, 512].map(|threads| {
            Schedule::GpuPoints(GpuPoints {
                threads,
                inline: inline.clone(),
            })
        }));
    }
    out
}
