//! Late interaction between the tokens of queries and a panel of sixteen targets.
//!
//! A panel holds sixteen targets side by side, one a lane: for each token position and each dimension the
//! sixteen numbers lie next to each other. A dot product of a query token with sixteen targets is then a
//! row of multiply-adds without any shuffle, and the softmax over target tokens runs lane by lane. Targets
//! are sorted by length, so that the lanes of a panel end at nearly the same position.
//!
//! One kernel serves all scorers, since each is a choice of three things:
//!
//! | scorer | tokens against | weights |
//! |---|---|---|
//! | soft late interaction | token states | softmax over the target's tokens |
//! | the same on the other axis | token states | softmax over the query's tokens |
//! | the same on both axes | token states | half of each |
//! | MaxSim | token states | all on the largest cosine |
//! | soft with a pooled target | pooled states (one position) | softmax over the query's tokens |
//! | cosine of pooled vectors | pooled states, pooled query (one token) | 1 |
//!
//! Scores never depend on which queries share a call, nor on the lanes beside a target.

use super::lanes::{InstructionSet, LANES, Lanes, Operation};
use super::linear::even_rows;
use super::math;

/// Sixteen targets, ready to be scored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelView<'a> {
    /// `[position][dimension][16]`
    pub(crate) states: States<'a>,
    /// 1 / norm of each state, `[position][16]`; 0 for the zero vector.
    pub(crate) inverse_norms: &'a [f32],
}

/// First counted position and one past the last, for each lane; both 0 for an empty lane.
pub(crate) type Ranges = [(u16, u16); LANES];

/// Stored token states.
#[derive(Clone, Copy, Debug)]
pub(crate) enum States<'a> {
    /// IEEE half precision, as bits.
    F16(&'a [u16]),
    /// Single precision.
    F32(&'a [f32]),
}

/// The tokens of some queries, ready to be scored.
#[derive(Clone, Debug)]
pub(crate) struct QueryTokens {
    /// `tokens x dimension`
    pub(crate) states: Vec<f32>,
    /// 1 / norm of each token state.
    pub(crate) inverse_norms: Vec<f32>,
    /// Boundaries of the queries, in tokens.
    pub(crate) offsets: Vec<usize>,
    /// Width of a state.
    pub(crate) dimension: usize,
}

impl QueryTokens {
    /// Number of queries.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// How the cosines of one query and one target become a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aggregation {
    /// Softmax over the target's tokens for each query token.
    SoftOverTarget,
    /// Softmax over the query's tokens for each target token.
    SoftOverQuery,
    /// The mean of the two.
    SoftOverBoth,
    /// Largest cosine for each query token.
    Max,
}

/// One scoring pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// What is aggregated.
    pub(crate) aggregation: Aggregation,
    /// Divides the logits; positive.
    pub(crate) temperature: f32,
    /// Whether a logit is multiplied by 1 / norm of the query token.
    pub(crate) unit_query: bool,
    /// Whether a logit is multiplied by 1 / norm of the target token.
    pub(crate) unit_target: bool,
    /// Whether a sum is divided by the number of its terms: target tokens for a softmax over the query's tokens, else query
    /// tokens.
    pub(crate) mean: bool,
}

/// Upper bound of `tokens * positions` that are scored together, unless one query alone has more: the
/// dot products of such a tile take 64 KiB and stay in the second-level cache.
const TILE: usize = 1024;

/// How many dimensions ahead a tile asks for states.
const PREFETCH: usize = 64;

impl Pass {
    /// Scores all queries against some panels of equally many positions:
    /// `scores[(panel * queries + query) * 16 + lane]`. Empty lanes and queries get 0.
    ///
    /// Several panels at once are for pooled targets: one position alone would leave the kernel waiting for
    /// query tokens.
    pub(crate) fn score_panels(
        &self,
        set: InstructionSet,
        queries: &QueryTokens,
        panels: &[(PanelView<'_>, Ranges)],
        buffers: (&mut Vec<f32>, &mut [f32]),
    ) {
        let (dots, scores) = buffers;
        assert_eq!(scores.len(), panels.len() * queries.len() * LANES);
        set.run(ScorePanels { pass: self, queries, panels, dots, scores });
    }
}

struct ScorePanels<'a> {
    pass: &'a Pass,
    queries: &'a QueryTokens,
    panels: &'a [(PanelView<'a>, Ranges)],
    dots: &'a mut Vec<f32>,
    scores: &'a mut [f32],
}

impl Operation for ScorePanels<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let queries = self.queries;
        let Some((view, _)) = self.panels.first() else { return };
        let positions = view.inverse_norms.len() / LANES;
        assert!(self.panels.iter().all(|(view, _)| view.inverse_norms.len() == positions * LANES));
        let columns = positions * self.panels.len();
        let mut first = 0;
        while first < queries.len() {
            // As many whole queries as fit a tile, at least one.
            let start = queries.offsets[first];
            let mut last = first + 1;
            while last < queries.len() && (queries.offsets[last + 1] - start) * columns <= TILE {
                last += 1;
            }
            let tokens = start..queries.offsets[last];
            self.dots.resize(tokens.len() * columns * LANES, 0.0);
            match view.states {
                States::F16(_) => dots::<L, u16>(queries, tokens, self.panels, self.dots),
                States::F32(_) => dots::<L, f32>(queries, tokens, self.panels, self.dots),
            }
            for (index, panel) in self.panels.iter().enumerate() {
                let fold = Fold::new(self.pass, panel, (index * positions, columns));
                for query in first..last {
                    let tokens = queries.offsets[query]..queries.offsets[query + 1];
                    let dots = &self.dots[(tokens.start - start) * columns * LANES..]
                        [..tokens.len() * columns * LANES];
                    let norms = &queries.inverse_norms[tokens];
                    let place = (index * queries.len() + query) * LANES;
                    fold.query::<L>(dots, norms, &mut self.scores[place..place + LANES]);
                }
            }
            first = last;
        }
    }
}

/// A stored number that loads as sixteen lanes.
trait Stored: Copy + 'static {
    /// The states, if they are stored as this type; else none.
    fn of<'a>(states: States<'a>) -> &'a [Self];
    /// # Safety
    /// `from` must be valid for reading sixteen numbers.
    unsafe fn load<L: Lanes>(from: *const Self) -> L::V;
}
impl Stored for u16 {
    #[inline(always)]
    fn of<'a>(states: States<'a>) -> &'a [Self] {
        if let States::F16(states) = states { states } else { &[] }
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L::V {
        // SAFETY: passed on to the caller.
        unsafe { L::load_f16(from) }
    }
}
impl Stored for f32 {
    #[inline(always)]
    fn of<'a>(states: States<'a>) -> &'a [Self] {
        if let States::F32(states) = states { states } else { &[] }
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L::V {
        // SAFETY: passed on to the caller.
        unsafe { L::load(from) }
    }
}

/// Dot products of query tokens with all columns: `out[token][column][16]`, a column being one position of one
/// panel, panel by panel.
#[inline(always)]
fn dots<L: Lanes, S: Stored>(
    queries: &QueryTokens,
    tokens: std::ops::Range<usize>,
    panels: &[(PanelView<'_>, Ranges)],
    out: &mut [f32],
) {
    let dimension = queries.dimension;
    let positions = panels[0].0.inverse_norms.len() / LANES;
    let columns = positions * panels.len();
    let column = |index: usize| {
        let states = S::of(panels[index / positions].0.states);
        &states[index % positions * dimension * LANES..][..dimension * LANES]
    };
    let size = even_rows(tokens.len(), L::TILE_TOKENS);
    for first in (0..columns).step_by(L::TILE_POSITIONS) {
        let count = L::TILE_POSITIONS.min(columns - first);
        for start in tokens.clone().step_by(size) {
            let block = size.min(tokens.end - start);
            let tile = DotTile {
                tokens: &queries.states[start * dimension..(start + block) * dimension],
                states: [column(first), column(first + count - 1)],
                dimension,
                stride: columns * LANES,
            };
            let from = ((start - tokens.start) * columns + first) * LANES;
            tile.write::<L>((block, count), &mut out[from..]);
        }
    }
}

/// A few query tokens times one or two columns.
struct DotTile<'a, S> {
    tokens: &'a [f32],
    /// The columns; the same twice when there is one.
    states: [&'a [S]; 2],
    dimension: usize,
    stride: usize,
}

impl<S: Stored> DotTile<'_, S> {
    #[inline(always)]
    fn write<L: Lanes>(&self, size: (usize, usize), out: &mut [f32]) {
        macro_rules! choose {
            ($($tokens:literal)*) => {
                match size {
                    $(($tokens, 1) if $tokens <= L::TILE_TOKENS => self.sized::<L, $tokens, 1>(out),
                      ($tokens, 2) if $tokens <= L::TILE_TOKENS && L::TILE_POSITIONS >= 2 =>
                          self.sized::<L, $tokens, 2>(out),)*
                    _ => unreachable!("tiles have 1 to 12 tokens and 1 or 2 positions"),
                }
            };
        }
        choose!(1 2 3 4 5 6 7 8 9 10 11 12)
    }

    #[inline(always)]
    fn sized<L: Lanes, const TOKENS: usize, const POSITIONS: usize>(&self, out: &mut [f32]) {
        let dimension = self.dimension;
        assert!(self.tokens.len() == TOKENS * dimension);
        assert!(POSITIONS <= 2 && self.states.iter().all(|column| column.len() == dimension * LANES));
        assert!(out.len() >= (TOKENS - 1) * self.stride + POSITIONS * LANES);
        let (tokens, states) = (self.tokens.as_ptr(), self.states.map(<[S]>::as_ptr));
        // SAFETY: the assertions bound every access.
        unsafe {
            let mut sums = [[L::splat(0.0); POSITIONS]; TOKENS];
            for k in 0..dimension {
                let mut targets = [L::splat(0.0); POSITIONS];
                for (position, target) in targets.iter_mut().enumerate() {
                    let from = states[position].add(k * LANES);
                    *target = S::load::<L>(from);
                    // Blocks follow each other in memory: what lies ahead is wanted next.
                    L::prefetch(from.wrapping_add(PREFETCH * LANES).cast());
                }
                for (token, sums) in sums.iter_mut().enumerate() {
                    let x = L::splat(*tokens.add(token * dimension + k));
                    for (sum, target) in sums.iter_mut().zip(targets) {
                        *sum = L::fma(x, target, *sum);
                    }
                }
            }
            for (token, sums) in sums.into_iter().enumerate() {
                for (position, sum) in sums.into_iter().enumerate() {
                    L::store(out.as_mut_ptr().add(token * self.stride + position * LANES), sum);
                }
            }
        }
    }
}

/// Turns the dot products of one query into its sixteen scores.
struct Fold<'a> {
    pass: &'a Pass,
    panel: &'a PanelView<'a>,
    positions: usize,
    /// First column of the panel, and the number of all columns.
    columns: (usize, usize),
    starts: [f32; LANES],
    ends: [f32; LANES],
    /// Positions at which every lane has a counted token.
    full: std::ops::Range<usize>,
}

impl<'a> Fold<'a> {
    #[inline(always)]
    fn new(pass: &'a Pass, panel: &'a (PanelView<'a>, Ranges), columns: (usize, usize)) -> Self {
        let (panel, ranges) = panel;
        let positions = panel.inverse_norms.len() / LANES;
        let (mut first, mut last) = (0, positions);
        for (start, end) in ranges {
            first = first.max(usize::from(*start));
            last = last.min(usize::from(*end));
        }
        let starts = ranges.map(|(start, _)| f32::from(start));
        let ends = ranges.map(|(_, end)| f32::from(end));
        Self { pass, panel, positions, columns, starts, ends, full: first..last }
    }

    #[inline(always)]
    fn query<L: Lanes>(&self, dots: &[f32], norms: &[f32], scores: &mut [f32]) {
        let score = match self.pass.aggregation {
            Aggregation::SoftOverTarget => self.soft_over_target::<L>(dots, norms),
            Aggregation::SoftOverQuery => self.soft_over_query::<L>(dots, norms),
            Aggregation::SoftOverBoth => {
                let over_target = self.soft_over_target::<L>(dots, norms);
                let over_query = self.soft_over_query::<L>(dots, norms);
                L::mul(L::add(over_target, over_query), L::splat(0.5))
            }
            Aggregation::Max => self.max::<L>(dots, norms),
        };
        // SAFETY: `scores` has sixteen entries.
        unsafe { L::store(scores[..LANES].as_mut_ptr(), score) };
    }

    /// `total`, divided by the number of query tokens where the pass asks for the mean.
    #[inline(always)]
    fn over_queries<L: Lanes>(&self, total: L::V, norms: &[f32]) -> L::V {
        if self.pass.mean { L::div(total, L::splat(norms.len().max(1) as f32)) } else { total }
    }

    /// The logit of a dot product. One factor is multiplied in after the other: the product of two large
    /// 1 / norms alone could overflow.
    #[inline(always)]
    fn logit<L: Lanes>(&self, dot: L::V, query_norm: f32, target_norms: L::V) -> L::V {
        let mut logit = dot;
        if self.pass.unit_query {
            logit = L::mul(logit, L::splat(query_norm));
        }
        if self.pass.unit_target {
            logit = L::mul(logit, target_norms);
        }
        L::mul(logit, L::splat(1.0 / self.pass.temperature))
    }

    /// `yes` in the lanes whose target has a counted token at `position`, else `no`.
    #[inline(always)]
    fn select<L: Lanes>(&self, position: usize, yes: L::V, no: L::V) -> L::V {
        if self.full.contains(&position) {
            return yes;
        }
        let position = L::splat(position as f32);
        // SAFETY: both arrays have sixteen entries.
        unsafe {
            let inside = L::select_less(position, L::load(self.ends.as_ptr()), yes, no);
            L::select_less(position, L::load(self.starts.as_ptr()), no, inside)
        }
    }

    /// Dot products of `token` with the targets' tokens at `position`, and their 1 / norms.
    #[inline(always)]
    fn at<L: Lanes>(&self, dots: &[f32], token: usize, position: usize) -> (L::V, L::V) {
        let (first, all) = self.columns;
        let dots = &dots[(token * all + first + position) * LANES..][..LANES];
        let norms = &self.panel.inverse_norms[position * LANES..][..LANES];
        // SAFETY: both slices have sixteen entries.
        unsafe { (L::load(dots.as_ptr()), L::load(norms.as_ptr())) }
    }

    #[inline(always)]
    fn soft_over_target<L: Lanes>(&self, dots: &[f32], norms: &[f32]) -> L::V {
        let none = L::splat(f32::NEG_INFINITY);
        let mut total = L::splat(0.0);
        for (token, norm) in norms.iter().enumerate() {
            // A finite start keeps `-inf - -inf` out of the lanes that have no token at all.
            let mut largest = L::splat(f32::MIN);
            for position in 0..self.positions {
                let (dot, target_norms) = self.at::<L>(dots, token, position);
                let logit = self.logit::<L>(dot, *norm, target_norms);
                largest = L::max(self.select::<L>(position, logit, none), largest);
            }
            let (mut weights, mut weighted) = (L::splat(0.0), L::splat(0.0));
            for position in 0..self.positions {
                let (dot, target_norms) = self.at::<L>(dots, token, position);
                let logit = self.logit::<L>(dot, *norm, target_norms);
                let logit = self.select::<L>(position, logit, none);
                let weight = math::exp::<L>(L::sub(logit, largest));
                let cosine = L::mul(L::mul(dot, L::splat(*norm)), target_norms);
                weights = L::add(weights, weight);
                weighted = L::fma(weight, cosine, weighted);
            }
            total = L::add(total, quotient::<L>(weighted, weights));
        }
        self.over_queries::<L>(total, norms)
    }

    #[inline(always)]
    fn soft_over_query<L: Lanes>(&self, dots: &[f32], norms: &[f32]) -> L::V {
        let mut total = L::splat(0.0);
        for position in 0..self.positions {
            let mut largest = L::splat(f32::MIN);
            for (token, norm) in norms.iter().enumerate() {
                let (dot, target_norms) = self.at::<L>(dots, token, position);
                largest = L::max(self.logit::<L>(dot, *norm, target_norms), largest);
            }
            let (mut weights, mut weighted) = (L::splat(0.0), L::splat(0.0));
            for (token, norm) in norms.iter().enumerate() {
                let (dot, target_norms) = self.at::<L>(dots, token, position);
                let logit = self.logit::<L>(dot, *norm, target_norms);
                let weight = math::exp::<L>(L::sub(logit, largest));
                let cosine = L::mul(L::mul(dot, L::splat(*norm)), target_norms);
                weights = L::add(weights, weight);
                weighted = L::fma(weight, cosine, weighted);
            }
            let value = quotient::<L>(weighted, weights);
            total = L::add(total, self.select::<L>(position, value, L::splat(0.0)));
        }
        if !self.pass.mean {
            return total;
        }
        // SAFETY: both arrays have sixteen entries.
        let counted = unsafe { L::sub(L::load(self.ends.as_ptr()), L::load(self.starts.as_ptr())) };
        L::div(total, L::max(counted, L::splat(1.0)))
    }

    #[inline(always)]
    fn max<L: Lanes>(&self, dots: &[f32], norms: &[f32]) -> L::V {
        let least = L::splat(f32::MIN);
        let mut total = L::splat(0.0);
        for (token, norm) in norms.iter().enumerate() {
            let mut largest = least;
            for position in 0..self.positions {
                let (dot, target_norms) = self.at::<L>(dots, token, position);
                let cosine = L::mul(L::mul(dot, L::splat(*norm)), target_norms);
                largest = L::max(self.select::<L>(position, cosine, least), largest);
            }
            total = L::add(total, L::select_less(least, largest, largest, L::splat(0.0)));
        }
        self.over_queries::<L>(total, norms)
    }
}

/// `numerator / denominator`, or 0 where the denominator is 0.
#[inline(always)]
fn quotient<L: Lanes>(numerator: L::V, denominator: L::V) -> L::V {
    let zero = L::splat(0.0);
    let safe = L::select_less(zero, denominator, denominator, L::splat(1.0));
    L::select_less(zero, denominator, L::div(numerator, safe), zero)
}

/// The formulas as they are written, in double precision: the reference of the tests.
#[cfg(test)]
pub(crate) mod reference {
    use super::{Aggregation, Pass};

    /// Score of one query (its token states) and one target, both `tokens x dimension`.
    pub(crate) fn score(pass: &Pass, query: &[f32], target: &[f32], dimension: usize) -> f64 {
        let rows = |x: &[f32]| -> Vec<Vec<f64>> {
            x.chunks(dimension).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
        };
        let (query, target) = (rows(query), rows(target));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let norm = |a: &[f64]| dot(a, a).sqrt();
        let unit = |a: &[f64]| if norm(a) > 0.0 { 1.0 / norm(a) } else { 0.0 };
        if query.is_empty() || target.is_empty() {
            return 0.0;
        }
        let cosine = |i: usize, j: usize| dot(&query[i], &target[j]) * unit(&query[i]) * unit(&target[j]);
        let logit = |i: usize, j: usize| {
            let mut value = dot(&query[i], &target[j]) / f64::from(pass.temperature);
            if pass.unit_query {
                value *= unit(&query[i]);
            }
            if pass.unit_target {
                value *= unit(&target[j]);
            }
            value
        };
        let soft = |pairs: Vec<(f64, f64)>| {
            let largest = pairs.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
            let weights: f64 = pairs.iter().map(|p| (p.0 - largest).exp()).sum();
            pairs.iter().map(|p| (p.0 - largest).exp() / weights * p.1).sum::<f64>()
        };
        let (n, m) = (query.len(), target.len());
        let over_target: f64 =
            (0..n).map(|i| soft((0..m).map(|j| (logit(i, j), cosine(i, j))).collect())).sum();
        let over_query: f64 =
            (0..m).map(|j| soft((0..n).map(|i| (logit(i, j), cosine(i, j))).collect())).sum();
        let (n_terms, m_terms) = if pass.mean { (n as f64, m as f64) } else { (1.0, 1.0) };
        match pass.aggregation {
            Aggregation::SoftOverTarget => over_target / n_terms,
            Aggregation::SoftOverQuery => over_query / m_terms,
            Aggregation::SoftOverBoth => (over_target / n_terms + over_query / m_terms) / 2.0,
            Aggregation::Max => {
                let largest = |i| (0..m).map(|j| cosine(i, j)).fold(f64::NEG_INFINITY, f64::max);
                (0..n).map(largest).sum::<f64>() / n_terms
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::inverse_norm;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    pub(super) fn queries(lengths: &[usize], dimension: usize) -> QueryTokens {
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        let states = numbers(offsets[offsets.len() - 1] * dimension, 5);
        let inverse_norms = states.chunks(dimension).map(inverse_norm).collect();
        QueryTokens { states, inverse_norms, offsets, dimension }
    }

    fn passes() -> Vec<Pass> {
        let mut all = Vec::new();
        for aggregation in [
            Aggregation::SoftOverTarget,
            Aggregation::SoftOverQuery,
            Aggregation::SoftOverBoth,
            Aggregation::Max,
        ] {
            for (unit_query, unit_target, mean) in
                [(false, false, true), (true, true, false), (false, true, true)]
            {
                for temperature in [0.1, 1.0] {
                    all.push(Pass { aggregation, temperature, unit_query, unit_target, mean });
                }
            }
        }
        all
    }

    #[test]
    fn equals_the_formula_at_every_length_and_all_sets_agree() {
        let dimension = 24;
        let query_lengths: Vec<usize> = (0..=33).chain([64]).collect();
        let queries = queries(&query_lengths, dimension);
        for longest in [1usize, 2, 3, 7, 16, 33, 64] {
            let lengths: [usize; LANES] = std::array::from_fn(|lane| (longest * lane).div_ceil(LANES - 1));
            let ranges = lengths.map(|length| (0, length as u16));
            let mut states = vec![0.0f32; longest * dimension * LANES];
            let mut norms = vec![0.0f32; longest * LANES];
            let mut targets = vec![Vec::new(); LANES];
            for (lane, length) in lengths.into_iter().enumerate() {
                let rounded = numbers(length * dimension, lane + 11)
                    .into_iter()
                    .map(|x| half::f16::from_f32(x).to_f32())
                    .collect::<Vec<_>>();
                for (position, state) in rounded.chunks(dimension).enumerate() {
                    norms[position * LANES + lane] = inverse_norm(state);
                    for (k, value) in state.iter().enumerate() {
                        states[(position * dimension + k) * LANES + lane] = *value;
                    }
                }
                targets[lane] = rounded;
            }
            let halves: Vec<u16> = states.iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
            for pass in passes() {
                let mut expected = vec![f32::NAN; queries.len() * LANES];
                let panel = PanelView { states: States::F16(&halves), inverse_norms: &norms };
                let mut dots = Vec::new();
                pass.score_panels(
                    InstructionSet::Scalar,
                    &queries,
                    &[(panel, ranges)],
                    (&mut dots, &mut expected),
                );
                for query in 0..queries.len() {
                    let tokens = &queries.states
                        [queries.offsets[query] * dimension..queries.offsets[query + 1] * dimension];
                    for lane in 0..LANES {
                        let exact = reference::score(&pass, tokens, &targets[lane], dimension);
                        let score = f64::from(expected[query * LANES + lane]);
                        assert!(
                            (score - exact).abs() < 1e-4 * exact.abs().max(1.0),
                            "{pass:?} {score} {exact}"
                        );
                    }
                }
                for set in InstructionSet::all() {
                    for states in [States::F16(&halves), States::F32(&states)] {
                        let panel = PanelView { states, ..panel };
                        let mut scores = vec![f32::NAN; expected.len()];
                        pass.score_panels(set, &queries, &[(panel, ranges)], (&mut dots, &mut scores));
                        assert_eq!(scores, expected, "{set} {pass:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn zero_vectors_and_empty_lanes_score_zero() {
        let queries = QueryTokens {
            states: vec![0.0; 2 * 8],
            inverse_norms: vec![0.0; 2],
            offsets: vec![0, 1, 2],
            dimension: 8,
        };
        let mut ranges = [(0, 1); LANES];
        ranges[5] = (0, 0);
        let panel = PanelView { states: States::F32(&[1.0; 8 * LANES]), inverse_norms: &[0.5; LANES] };
        for pass in passes() {
            let mut scores = vec![f32::NAN; 2 * LANES];
            pass.score_panels(
                InstructionSet::detect(),
                &queries,
                &[(panel, ranges)],
                (&mut Vec::new(), &mut scores),
            );
            assert_eq!(scores, vec![0.0; 2 * LANES], "{pass:?}");
        }
    }
}
