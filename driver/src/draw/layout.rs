//! A layered layout: boxes in rows by their longest path from a source, few crossings, straight arrows.
//!
//! The four steps of Sugiyama, Tagawa and Toda ("Methods for Visual Understanding of Hierarchical System Structures", 1981): layers,
//! points where an arrow passes a layer, an order within each layer by the barycentre of the neighbours (of several sweeps the one with
//! the fewest crossings), places. A place is as near to the mean of its neighbours as the distances within its layer let it, which is
//! isotonic regression and solved by pooling. The text of a value is a box of its own between two layers, so that no text meets another.
//!
//! Invariant: boxes of a layer do not overlap, and layers do not either.

use super::{Drawing, Kind};
use std::collections::HashMap;

/// A width and a height.
pub type Size = (f64, f64);

/// Where a box is: its centre and its size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Placed {
    /// The centre.
    pub x: f64,
    /// The centre.
    pub y: f64,
    /// The size.
    pub size: Size,
}

/// A picture with places.
#[derive(Clone, PartialEq, Debug)]
pub struct Layout {
    /// Where each box is.
    pub nodes: Vec<Placed>,
    /// The points that each arrow goes through: leaves of boxes, passages through layers.
    pub edges: Vec<Vec<(f64, f64)>>,
    /// Texts of values: what, and where.
    pub labels: Vec<(String, Placed)>,
    /// The size of all of it.
    pub size: Size,
}

/// Between boxes of a layer.
const GAP: f64 = 18.0;
/// Between layers.
const RISE: f64 = 22.0;
/// Sweeps for an order, and for places.
const SWEEPS: usize = 12;

/// A box, a text or a passage of the layered graph.
struct Item {
    layer: usize,
    size: Size,
    up: Vec<usize>,
    down: Vec<usize>,
    x: f64,
    y: f64,
}

#[derive(Default)]
struct Layered {
    items: Vec<Item>,
    layers: Vec<Vec<usize>>,
    /// The items of each arrow, from box to box.
    paths: Vec<Vec<usize>>,
    labels: Vec<(String, usize)>,
}

/// Places a picture whose boxes, and the texts along its arrows, have sizes.
pub fn layout(d: &Drawing, size: &dyn Fn(usize) -> Size, text: &dyn Fn(&str) -> Size) -> Layout {
    let layers = layers(d);
    let mut all = Layered::default();
    for (n, layer) in layers.iter().enumerate() {
        all.item(*layer, size(n));
    }
    let mut shared: HashMap<(usize, &str), usize> = HashMap::new();
    let mut passages: HashMap<(usize, usize), usize> = HashMap::new();
    for edge in &d.edges {
        let mut path = vec![edge.from];
        let mut from = edge.from;
        if !edge.label.is_empty() {
            from = *shared.entry((edge.from, &edge.label)).or_insert_with(|| {
                let label = all.item(layers[edge.from] + 1, text(&edge.label));
                all.labels.push((edge.label.clone(), label));
                label
            });
            all.join(edge.from, from);
            path.push(from);
        }
        // Arrows of one value share the passages as far as they go.
        let start = from;
        for layer in all.items[from].layer + 1..layers[edge.to] {
            let passage = *passages
                .entry((start, layer))
                .or_insert_with(|| all.item(layer, (6.0, 0.0)));
            all.join(from, passage);
            path.push(passage);
            from = passage;
        }
        all.join(from, edge.to);
        path.push(edge.to);
        all.paths.push(path);
    }
    all.order();
    all.place();
    all.finish(d.nodes.len())
}

/// The layer of each box: even ones, below all that it reads. Inputs, and what does not depend on one, are just above what reads them.
fn layers(d: &Drawing) -> Vec<usize> {
    let mut layers = vec![0usize; d.nodes.len()];
    let (mut into, mut out) = (vec![vec![]; d.nodes.len()], vec![vec![]; d.nodes.len()]);
    for e in &d.edges {
        into[e.to].push(e.from);
        out[e.from].push(e.to);
    }
    // Boxes stand behind what they read.
    for n in 0..layers.len() {
        layers[n] = into[n].iter().map(|&f: &usize| layers[f] + 2).max().unwrap_or(0);
    }
    let mut varies: Vec<bool> = d.nodes.iter().map(|n| n.kind == Kind::Input).collect();
    for n in 0..layers.len() {
        varies[n] |= into[n].iter().any(|&f| varies[f]);
    }
    for n in (0..layers.len()).rev().filter(|&n| into[n].is_empty() || !varies[n]) {
        if let Some(first) = out[n].iter().map(|&t: &usize| layers[t]).min() {
            layers[n] = first - 2;
        }
    }
    layers
}

impl Layered {
    fn item(&mut self, layer: usize, size: Size) -> usize {
        self.items.push(Item {
            layer,
            size,
            up: vec![],
            down: vec![],
            x: 0.0,
            y: 0.0,
        });
        self.items.len() - 1
    }

    fn join(&mut self, from: usize, to: usize) {
        if !self.items[from].down.contains(&to) {
            self.items[from].down.push(to);
            self.items[to].up.push(from);
        }
    }

    /// Orders the layers so that few arrows cross.
    fn order(&mut self) {
        let count = self.items.iter().map(|i| i.layer + 1).max().unwrap_or(0);
        self.layers = vec![vec![]; count];
        // Where a walk from the sources comes by first, what belongs together stands together.
        let mut seen = vec![false; self.items.len()];
        for root in (0..self.items.len())
            .rev()
            .filter(|&i| self.items[i].down.is_empty())
            .collect::<Vec<_>>()
        {
            let mut ahead = vec![root];
            while let Some(i) = ahead.pop() {
                if !std::mem::replace(&mut seen[i], true) {
                    self.layers[self.items[i].layer].push(i);
                    ahead.extend(self.items[i].up.iter().rev().filter(|&&u| !seen[u]));
                }
            }
        }
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let down = sweep % 2 == 0;
            for k in 0..count {
                self.sort(if down { k } else { count - 1 - k }, down);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    /// Positions within the layers.
    fn positions(&self) -> Vec<usize> {
        let mut at = vec![0; self.items.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(p, &i)| at[i] = p);
        }
        at
    }

    /// Sorts a layer by the barycentres of what is above, or below.
    fn sort(&mut self, layer: usize, above: bool) {
        let neighbours = |i: usize| if above { &self.items[i].up } else { &self.items[i].down };
        let place = |i: usize| self.items[i].x;
        let key = |(p, &i): (usize, &usize)| {
            let all = neighbours(i);
            match all.is_empty() {
                true => (p as f64, i),
                false => (all.iter().map(|&n| place(n)).sum::<f64>() / all.len() as f64, i),
            }
        };
        let mut keyed: Vec<(f64, usize)> = self.layers[layer].iter().enumerate().map(key).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.layers[layer] = keyed.into_iter().map(|k| k.1).collect();
        for (p, &i) in self.layers[layer].iter().enumerate() {
            self.items[i].x = p as f64;
        }
    }

    /// How many pairs of arrows between neighbouring layers cross.
    fn crossings(&mut self) -> usize {
        let at = self.positions();
        for (i, p) in at.iter().enumerate() {
            self.items[i].x = *p as f64;
        }
        let mut sum = 0;
        for layer in &self.layers {
            let mut ends: Vec<usize> = vec![];
            for &i in layer {
                let mut below: Vec<usize> = self.items[i].down.iter().map(|&d| at[d]).collect();
                below.sort_unstable();
                sum += below
                    .iter()
                    .map(|b| ends.len() - ends.partition_point(|e| e <= b))
                    .sum::<usize>();
                for b in below {
                    ends.insert(ends.partition_point(|e| *e <= b), b);
                }
            }
        }
        sum
    }

    /// Gives every item its place.
    fn place(&mut self) {
        let mut top = 0.0;
        for l in 0..self.layers.len() {
            let layer = &self.layers[l];
            let height = layer.iter().map(|&i| self.items[i].size.1).fold(0.0, f64::max);
            let mut left = 0.0;
            for &i in layer {
                let item = &mut self.items[i];
                (item.x, item.y) = (left + item.size.0 / 2.0, top + height / 2.0);
                left += item.size.0 + GAP;
            }
            top += height + RISE;
        }
        for sweep in 0..2 * SWEEPS {
            let (n, down) = (self.layers.len(), sweep % 2 == 0);
            for k in 0..n {
                self.settle(if down { k } else { n - 1 - k }, sweep + 2 >= 2 * SWEEPS, down);
            }
        }
    }

    /// Moves a layer towards its neighbours above or below, or both.
    fn settle(&mut self, layer: usize, both: bool, above: bool) {
        let items = &self.layers[layer];
        let mut offset = 0.0;
        let mut offsets = vec![];
        // (weight, mean of wishes, number of items) of pools, left to right.
        let mut pools: Vec<(f64, f64, usize)> = vec![];
        for (k, &i) in items.iter().enumerate() {
            let item = &self.items[i];
            if k > 0 {
                offset += (self.items[items[k - 1]].size.0 + item.size.0) / 2.0 + GAP;
            }
            offsets.push(offset);
            let sides = [(above || both, &item.up), (!above || both, &item.down)];
            let near: Vec<usize> = sides.iter().filter(|s| s.0).flat_map(|s| s.1.iter().copied()).collect();
            let (wish, weight) = match near.len() {
                0 => (item.x, 0.1),
                n => {
                    let mean = near.iter().map(|&j| self.items[j].x).sum::<f64>() / n as f64;
                    // Passages bend last.
                    (mean, if item.size.1 == 0.0 { 4.0 } else { 1.0 })
                }
            };
            let mut pool = (weight, wish - offset, 1);
            while let Some(last) = pools.last().filter(|l| l.1 > pool.1) {
                let weight = last.0 + pool.0;
                pool = (weight, (last.0 * last.1 + pool.0 * pool.1) / weight, last.2 + pool.2);
                pools.pop();
            }
            pools.push(pool);
        }
        let places = pools.iter().flat_map(|p| std::iter::repeat_n(p.1, p.2));
        let moved: Vec<(usize, f64)> = (items.iter().zip(places).zip(offsets))
            .map(|((&i, p), offset)| (i, p + offset))
            .collect();
        for (i, x) in moved {
            self.items[i].x = x;
        }
    }

    /// What the first items, which are the boxes, and the arrows between them are.
    fn finish(self, boxes: usize) -> Layout {
        const MARGIN: f64 = 16.0;
        let left = self.items.iter().map(|i| i.x - i.size.0 / 2.0).fold(f64::MAX, f64::min);
        let right = self.items.iter().map(|i| i.x + i.size.0 / 2.0).fold(f64::MIN, f64::max);
        let bottom = self.items.iter().map(|i| i.y + i.size.1 / 2.0).fold(0.0, f64::max);
        let bands: Vec<f64> = (self.layers.iter())
            .map(|l| l.iter().map(|&i| self.items[i].size.1).fold(0.0, f64::max) / 2.0)
            .collect();
        let placed = |i: usize| Placed {
            x: self.items[i].x - left + MARGIN,
            y: self.items[i].y + MARGIN,
            size: self.items[i].size,
        };
        let route = |path: &Vec<usize>| {
            let mut points = vec![];
            for (k, &i) in path.iter().enumerate() {
                let (at, band) = (placed(i), bands[self.items[i].layer]);
                let (half, is_box) = (at.size.1 / 2.0, i < boxes);
                // Into a box at its edge, through everything else from the top of the layer to its bottom.
                let (top, bottom) = (at.y - band, at.y + band);
                match (k == 0, is_box) {
                    (true, _) => points.extend([(at.x, at.y + half), (at.x, bottom)]),
                    (false, true) => points.extend([(at.x, top), (at.x, at.y - half)]),
                    (false, false) => points.extend([(at.x, top), (at.x, bottom)]),
                }
            }
            points
        };
        Layout {
            nodes: (0..boxes).map(placed).collect(),
            edges: self.paths.iter().map(route).collect(),
            labels: self.labels.iter().map(|(text, i)| (text.clone(), placed(*i))).collect(),
            size: ((right - left).max(0.0) + 2.0 * MARGIN, bottom + 2.0 * MARGIN),
        }
    }
}
