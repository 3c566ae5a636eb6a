//! A profile for programs. Times are seconds, rates are a second's.

use super::roof::{self, Wall};
use super::{Profile, Row, Times};
use brolga_ir::figures::Origin;
use serde_json::{Map, Value, json};

fn times(t: Times) -> Value {
    json!({"median": t.median, "p10": t.p10, "p90": t.p90, "min": t.min, "max": t.max})
}

fn row(r: &Row, counters: &[&'static str]) -> Value {
    let counts: Option<Map<String, Value>> = r.counts.as_ref().map(|counts| {
        let named = counters.iter().zip(counts);
        named.map(|(name, n)| ((*name).to_owned(), json!(n))).collect()
    });
    json!({
        "name": r.name,
        "kind": r.kind.name(),
        "kernel": r.kernel,
        "symbol": r.symbol,
        "steps": r.steps,
        "nodes": r.nodes,
        "schedules": r.schedules,
        "calls": r.calls,
        "call": times(r.call),
        "seconds": r.seconds,
        "share": r.share,
        "busy": r.busy,
        "flops": r.work.map(|w| w.flops),
        "int_ops": r.work.map(|w| w.int_ops),
        "bytes_read": r.work.map(|w| w.bytes_read),
        "bytes_written": r.work.map(|w| w.bytes_written),
        "flops_per_second": r.flops(),
        "bytes_per_second": r.bandwidth(),
        "roof": r.roof.map(|roof| json!({
            "seconds": roof.seconds,
            "wall": roof.wall.to_string(),
            "share": r.efficiency(),
        })),
        "counters": counts,
    })
}

impl Profile {
    /// The profile as JSON.
    pub fn json(&self) -> Value {
        let counters = self.counted.as_ref().map_or(&[][..], |c| &c.names);
        let rows: Vec<Value> = self.rows.iter().map(|r| row(r, counters)).collect();
        let steps = self.steps.iter().map(|s| {
            json!({
                "kind": s.kind.name(), "name": s.name, "kernel": s.kernel, "nodes": s.nodes, "parent": s.parent,
                "calls": s.calls,
            })
        });
        let walls = roof::walls(&self.figures).into_iter().map(|w| {
            json!({
                "name": w.to_string(),
                "bytes": matches!(w, Wall::Cache(_) | Wall::Memory),
                "per_second": roof::peak(&self.figures, w, self.threads as usize),
            })
        });
        let blocks = self.arena.blocks.iter().map(|b| {
            json!({
                "slot": b.slot, "type": b.ty, "offset": b.offset, "bytes": b.bytes, "first": b.first, "last": b.last,
                "nodes": b.nodes,
            })
        });
        let sizes: Map<String, Value> = self.sizes.iter().map(|(s, n)| (s.to_string(), json!(n))).collect();
        let refused = self.counted.iter().flat_map(|c| &c.refused);
        json!({
            "model": self.model,
            "target": self.target,
            "threads": self.threads,
            "sizes": sizes,
            "runs": self.records.len(),
            "run": times(self.run),
            "hook": self.hook.as_secs_f64(),
            "outside": self.outside,
            "figures": match self.figures.origin { Origin::Measured => "measured", Origin::BuiltIn => "built-in" },
            "walls": walls.collect::<Vec<_>>(),
            "kernels": rows,
            "steps": steps.collect::<Vec<_>>(),
            "arena": {"bytes": self.arena.bytes, "unknown": self.arena.unknown, "blocks": blocks.collect::<Vec<_>>()},
            "counters": {
                "read": counters,
                "refused": refused.map(|(n, why)| json!({"name": n, "why": why})).collect::<Vec<_>>(),
            },
        })
    }
}
