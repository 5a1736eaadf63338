//! Scores of all pairs of two lists of texts, forward and back, for every scorer that serves.
//!
//! With token states `q_a` and `y_b`, `D_ab` their dot product and `C_ab` their cosine, a soft scorer is `sum A_ab C_ab` with `A`
//! the softmax of the logits. Given the slope `g` of a pair's score, `dC_ab = g A_ab` and `dlogit_ab = g A_ab (C_ab - s)`, where
//! `s` is the part of the score that the softmax of `b` belongs to; both go back to `D` and the lengths.
//!
//! Products of a block of queries and a block of targets are made, used and forgotten, and made again on the way back: memory
//! grows with the tokens and with the scores, never with tokens times tokens.

use crate::matrix::{Matrix, add, exp, product};
use crate::network::Batch;
use crate::threads::Threads;
use std::ops::Range;
use uwe::{Axis, Logits, Pooling, Reduction, Scorer, Scoring};

/// Query tokens and target tokens of a block of products.
const QUERY_BLOCK: usize = 96;
const TARGET_BLOCK: usize = 768;
/// Groups of query blocks whose target gradients are added up apart.
const GROUPS: usize = 8;

/// How a softmax or a maximum runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// Over the target's tokens, for each query token.
    OverTarget,
    /// Over the query's tokens, for each target token.
    OverQuery,
    /// The largest cosine for each query token.
    Maximum,
}

/// A scorer as the loops know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    form: Form,
    temperature: f32,
    unit_query: bool,
    unit_target: bool,
    mean: bool,
    pub(crate) pools_query: bool,
    pub(crate) pools_target: bool,
}

impl Pass {
    pub(crate) fn new(scorer: &Scorer) -> Self {
        let pass = |form, temperature, logits: Logits, mean| Self {
            form,
            temperature,
            unit_query: logits == Logits::Cosine,
            unit_target: logits != Logits::Raw,
            mean,
            pools_query: false,
            pools_target: false,
        };
        match *scorer {
            Scorer::SoftLateInteraction { temperature, logits, axis, reduction } => {
                let form = if axis == Axis::Target { Form::OverTarget } else { Form::OverQuery };
                pass(form, temperature, logits, reduction == Reduction::Mean)
            }
            Scorer::MaxSim { reduction } => {
                pass(Form::Maximum, 1.0, Logits::Raw, reduction == Reduction::Mean)
            }
            Scorer::SoftPooled { temperature, logits } => {
                Self { pools_target: true, ..pass(Form::OverQuery, temperature, logits, false) }
            }
            Scorer::Cosine => {
                let pass = pass(Form::Maximum, 1.0, Logits::Raw, false);
                Self { pools_query: true, pools_target: true, ..pass }
            }
        }
    }
}

/// How a text's counted vectors come of its token states.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// Its tokens, without so many at the start and the end.
    Tokens(usize, usize),
    /// One pooled vector.
    Pooled(Pooling),
}

impl Counted {
    /// What counts of a query or a target.
    pub(crate) fn of(scoring: &Scoring, pools: bool, pooling: Pooling, special: (usize, usize)) -> Self {
        match (pools, scoring.special_tokens) {
            (true, _) => Self::Pooled(pooling),
            (false, true) => Self::Tokens(0, 0),
            (false, false) => Self::Tokens(special.0, special.1),
        }
    }
}

/// The counted vectors of some texts of a batch.
pub(crate) struct Side {
    vectors: Vec<f32>,
    /// Where each text starts; then the number of vectors.
    offsets: Vec<usize>,
    /// Reciprocal length of each vector; 0 for one of length 0.
    inverse: Vec<f32>,
    width: usize,
    counted: Counted,
    texts: Vec<usize>,
}

impl Side {
    pub(crate) fn new(
        batch: &Batch,
        states: &[f32],
        width: usize,
        texts: &[usize],
        counted: Counted,
    ) -> Self {
        let mut side = Self {
            vectors: Vec::new(),
            offsets: vec![0],
            inverse: Vec::new(),
            width,
            counted,
            texts: texts.to_vec(),
        };
        for text in texts {
            let tokens = batch.tokens(*text);
            match counted {
                Counted::Tokens(before, after) => {
                    let own = tokens.start + before..(tokens.end - after).max(tokens.start + before);
                    side.vectors.extend_from_slice(&states[own.start * width..own.end * width]);
                }
                Counted::Pooled(Pooling::FirstToken) => {
                    side.vectors.extend_from_slice(&states[tokens.start * width..(tokens.start + 1) * width]);
                }
                Counted::Pooled(Pooling::Mean) => {
                    let start = side.vectors.len();
                    side.vectors.resize(start + width, 0.0);
                    for token in tokens.clone() {
                        add(&mut side.vectors[start..], &states[token * width..(token + 1) * width]);
                    }
                    side.vectors[start..].iter_mut().for_each(|value| *value /= tokens.len() as f32);
                }
            }
            side.offsets.push(side.vectors.len() / width);
        }
        side.inverse = side
            .vectors
            .chunks_exact(width)
            .map(|vector| {
                let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
                if length > 0.0 { 1.0 / length } else { 0.0 }
            })
            .collect();
        side
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    fn vectors(&self, texts: &Range<usize>) -> (&[f32], Range<usize>) {
        let rows = self.offsets[texts.start]..self.offsets[texts.end];
        (&self.vectors[rows.start * self.width..rows.end * self.width], rows)
    }

    /// Blocks of whole texts of about so many vectors.
    fn blocks(&self, vectors: usize) -> Vec<Range<usize>> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for text in 0..self.len() {
            let end = text + 1;
            if end == self.len() || self.offsets[end + 1] - self.offsets[start] > vectors {
                blocks.push(start..end);
                start = end;
            }
        }
        blocks
    }

    /// Adds the gradient of the vectors to that of the token states.
    pub(crate) fn scatter(&self, batch: &Batch, gradient: &[f32], to_states: &mut [f32]) {
        let width = self.width;
        for (text, own) in self.texts.iter().zip(self.offsets.windows(2)) {
            let gradient = &gradient[own[0] * width..own[1] * width];
            let tokens = batch.tokens(*text);
            match self.counted {
                Counted::Tokens(before, _) => {
                    let start = (tokens.start + before) * width;
                    add(&mut to_states[start..start + gradient.len()], gradient);
                }
                Counted::Pooled(Pooling::FirstToken) => {
                    add(&mut to_states[tokens.start * width..(tokens.start + 1) * width], gradient);
                }
                Counted::Pooled(Pooling::Mean) => {
                    let share: Vec<f32> = gradient.iter().map(|value| value / tokens.len() as f32).collect();
                    for token in tokens {
                        add(&mut to_states[token * width..(token + 1) * width], &share);
                    }
                }
            }
        }
    }
}

/// Products of a block of queries with a block of targets, and what is made of them; kept from block to block.
#[derive(Default)]
struct Block {
    /// Dot products, then their gradients.
    dots: Vec<f32>,
    cosines: Vec<f32>,
    /// Attention weights.
    weights: Vec<f32>,
    logits: Vec<f32>,
    /// For each softmax, its part of the score.
    parts: Vec<f32>,
}

/// Scores of all pairs, `queries x targets`.
pub(crate) fn scores(pass: &Pass, query: &Side, target: &Side, threads: &Threads) -> Vec<f32> {
    let target_blocks = target.blocks(TARGET_BLOCK);
    let rows = threads.map(query.blocks(QUERY_BLOCK), |queries| {
        let mut rows = vec![0.0; queries.len() * target.len()];
        let mut block = Block::default();
        for targets in &target_blocks {
            block.make(pass, (query, &queries), (target, targets));
            block.add_scores(pass, (query, &queries), (target, targets), &mut rows);
        }
        rows
    });
    rows.concat()
}

/// Gradients of the query's and the target's vectors, from those of the scores.
pub(crate) fn scores_back(
    pass: &Pass,
    query: &Side,
    target: &Side,
    slopes: &[f32],
    threads: &Threads,
) -> (Vec<f32>, Vec<f32>) {
    let target_blocks = target.blocks(TARGET_BLOCK);
    let mut blocks = query.blocks(QUERY_BLOCK);
    let each = blocks.len().div_ceil(GROUPS).max(1);
    let mut groups = Vec::new();
    while !blocks.is_empty() {
        let rest = blocks.split_off(each.min(blocks.len()));
        groups.push(std::mem::replace(&mut blocks, rest));
    }
    let made = threads.map(groups, |group| {
        let mut to_query = Vec::new();
        let mut to_target = vec![0.0; target.vectors.len()];
        // How much of each vector's own direction has to be taken off again: the gradient of its length.
        let (mut query_lengths, mut target_lengths) = (Vec::new(), vec![0.0; target.inverse.len()]);
        let mut block = Block::default();
        for queries in &group {
            let (vectors, rows) = query.vectors(queries);
            let mut own = vec![0.0; vectors.len()];
            let mut lengths = vec![0.0; rows.len()];
            for targets in &target_blocks {
                block.make(pass, (query, queries), (target, targets));
                let (others, columns) = target.vectors(targets);
                let lengths = (&mut lengths[..], &mut target_lengths[columns.clone()]);
                block.back(pass, (query, queries), (target, targets), slopes, lengths);
                let gradient = Matrix::new(&block.dots, columns.len());
                product(gradient, Matrix::new(others, target.width), &mut own, true);
                let to = &mut to_target[columns.start * target.width..columns.end * target.width];
                product(gradient.t(), Matrix::new(vectors, query.width), to, true);
            }
            to_query.extend(own);
            query_lengths.extend(lengths);
        }
        (to_query, query_lengths, to_target, target_lengths)
    });
    let mut to_query = Vec::with_capacity(query.vectors.len());
    let mut query_lengths = Vec::with_capacity(query.inverse.len());
    let mut to_target = vec![0.0; target.vectors.len()];
    let mut target_lengths = vec![0.0; target.inverse.len()];
    for (own, own_lengths, others, lengths) in made {
        to_query.extend(own);
        query_lengths.extend(own_lengths);
        add(&mut to_target, &others);
        add(&mut target_lengths, &lengths);
    }
    take_lengths_off(query, &query_lengths, &mut to_query);
    take_lengths_off(target, &target_lengths, &mut to_target);
    (to_query, to_target)
}

fn take_lengths_off(side: &Side, lengths: &[f32], gradient: &mut [f32]) {
    let rows = gradient.chunks_exact_mut(side.width).zip(side.vectors.chunks_exact(side.width));
    for ((gradient, vector), (length, inverse)) in rows.zip(lengths.iter().zip(&side.inverse)) {
        let factor = length * inverse * inverse;
        gradient.iter_mut().zip(vector).for_each(|(gradient, value)| *gradient -= factor * value);
    }
}

type Part<'a> = (&'a Side, &'a Range<usize>);

impl Block {
    /// Dot products, cosines, attention weights and parts of the score.
    fn make(&mut self, pass: &Pass, (query, queries): Part<'_>, (target, targets): Part<'_>) {
        let (left, rows) = query.vectors(queries);
        let (right, columns) = target.vectors(targets);
        let (height, width) = (rows.len(), columns.len());
        for values in [&mut self.dots, &mut self.cosines, &mut self.weights, &mut self.logits] {
            values.resize(height * width, 0.0);
        }
        product(Matrix::new(left, query.width), Matrix::new(right, target.width).t(), &mut self.dots, false);
        let inverse = &target.inverse[columns];
        let rate = 1.0 / pass.temperature;
        let Self { dots, cosines, weights, logits, parts } = self;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in 0..height {
                    let own = query.inverse[rows.start + row];
                    let place = row * width..(row + 1) * width;
                    let query_rate = if pass.unit_query { rate * own } else { rate };
                    let (dots, cosines, logits) =
                        (&dots[place.clone()], &mut cosines[place.clone()], &mut logits[place]);
                    for column in 0..width {
                        cosines[column] = dots[column] * own * inverse[column];
                        let target_rate = if pass.unit_target { inverse[column] } else { 1.0 };
                        logits[column] = dots[column] * query_rate * target_rate;
                    }
                }
            },
        );
        let query_offsets = offsets(query, queries);
        let target_offsets = offsets(target, targets);
        match pass.form {
            Form::OverTarget => {
                parts.clear();
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || soft_over_target(&target_offsets, width, (logits, cosines), (weights, parts)),
                );
            }
            Form::OverQuery => {
                parts.clear();
                parts.resize(queries.len() * width, 0.0);
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || soft_over_query(&query_offsets, width, (logits, cosines), (weights, parts)),
                );
            }
            Form::Maximum => {
                parts.clear();
                weights.fill(0.0);
                for (weights, cosines) in weights.chunks_exact_mut(width).zip(cosines.chunks_exact(width)) {
                    for text in target_offsets.windows(2) {
                        let mut best = text[0];
                        for column in text[0]..text[1] {
                            if cosines[column] > cosines[best] {
                                best = column;
                            }
                        }
                        let empty = text[0] == text[1];
                        parts.push(if empty { 0.0 } else { cosines[best] });
                        if !empty {
                            weights[best] = 1.0;
                        }
                    }
                }
            }
        }
    }

    /// Adds the block's scores to the rows of its queries.
    fn add_scores(
        &self,
        pass: &Pass,
        (query, queries): Part<'_>,
        (target, targets): Part<'_>,
        scores: &mut [f32],
    ) {
        let query_offsets = offsets(query, queries);
        let target_offsets = offsets(target, targets);
        for (index, own) in query_offsets.windows(2).enumerate() {
            for (place, other) in target_offsets.windows(2).enumerate() {
                let (sum, count) = match pass.form {
                    Form::OverQuery => {
                        let width = target_offsets[targets.len()];
                        let parts = &self.parts[index * width..][other[0]..other[1]];
                        (parts.iter().sum::<f32>(), other[1] - other[0])
                    }
                    Form::OverTarget | Form::Maximum => {
                        let parts = (own[0]..own[1]).map(|row| self.parts[row * targets.len() + place]);
                        (parts.sum::<f32>(), own[1] - own[0])
                    }
                };
                let share = if pass.mean { 1.0 / count.max(1) as f32 } else { 1.0 };
                let empty = own[0] == own[1] || other[0] == other[1];
                scores[index * target.len() + targets.start + place] += if empty { 0.0 } else { sum * share };
            }
        }
    }

    /// Puts the gradient of the dot products in their place, and adds to those of the lengths.
    fn back(
        &mut self,
        pass: &Pass,
        (query, queries): Part<'_>,
        (target, targets): Part<'_>,
        slopes: &[f32],
        (query_lengths, target_lengths): (&mut [f32], &mut [f32]),
    ) {
        let query_offsets = offsets(query, queries);
        let target_offsets = offsets(target, targets);
        let width = target_offsets[targets.len()];
        let first = (query.offsets[queries.start], target.offsets[targets.start]);
        let inverse = &target.inverse[first.1..first.1 + width];
        let rate = 1.0 / pass.temperature;
        let soft = pass.form != Form::Maximum;
        let mut row_slopes = vec![0.0; width];
        for (index, own) in query_offsets.windows(2).enumerate() {
            // The slope of each target's score, for each of its columns.
            let slopes = &slopes[(queries.start + index) * target.len()..][targets.clone()];
            for (slope, other) in slopes.iter().zip(target_offsets.windows(2)) {
                let count = if pass.form == Form::OverQuery { other[1] - other[0] } else { own[1] - own[0] };
                let share = if pass.mean { 1.0 / count.max(1) as f32 } else { 1.0 };
                row_slopes[other[0]..other[1]].fill(slope * share);
            }
            for row in own[0]..own[1] {
                let place = row * width..(row + 1) * width;
                // The part of the score that each column's softmax belongs to.
                let parts: Vec<f32> = if pass.form == Form::OverQuery {
                    self.parts[index * width..(index + 1) * width].to_vec()
                } else {
                    let parts = &self.parts[row * targets.len()..(row + 1) * targets.len()];
                    let spread = parts.iter().zip(target_offsets.windows(2));
                    spread.flat_map(|(part, other)| std::iter::repeat_n(*part, other[1] - other[0])).collect()
                };
                let query_inverse = query.inverse[first.0 + row];
                let query_rate = if pass.unit_query { rate * query_inverse } else { rate };
                let Self { dots, cosines, weights, logits, .. } = self;
                let (dots, cosines) = (&mut dots[place.clone()], &cosines[place.clone()]);
                let (weights, logits) = (&weights[place.clone()], &logits[place]);
                let mut own_length = 0.0;
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        let mut sums = [0.0f32; 16];
                        for column in 0..width {
                            let to_cosine = row_slopes[column] * weights[column];
                            let to_logit =
                                if soft { to_cosine * (cosines[column] - parts[column]) } else { 0.0 };
                            let target_rate = if pass.unit_target { inverse[column] } else { 1.0 };
                            dots[column] = to_cosine * query_inverse * inverse[column]
                                + to_logit * query_rate * target_rate;
                            let by_cosine = to_cosine * cosines[column];
                            let by_logit = to_logit * logits[column];
                            sums[column % 16] += by_cosine + if pass.unit_query { by_logit } else { 0.0 };
                            target_lengths[column] +=
                                by_cosine + if pass.unit_target { by_logit } else { 0.0 };
                        }
                        for sum in sums {
                            own_length += sum;
                        }
                    },
                );
                query_lengths[row] += own_length;
            }
        }
    }
}

/// Where each text of a block starts, counted from the block's first vector; then the number of vectors.
fn offsets(side: &Side, texts: &Range<usize>) -> Vec<usize> {
    let first = side.offsets[texts.start];
    side.offsets[texts.start..=texts.end].iter().map(|offset| offset - first).collect()
}

/// For each row and text: the softmax of its logits as weights, and the weighted cosine.
#[inline(always)]
fn soft_over_target(
    texts: &[usize],
    width: usize,
    (logits, cosines): (&[f32], &[f32]),
    (weights, parts): (&mut [f32], &mut Vec<f32>),
) {
    let rows = weights.chunks_exact_mut(width).zip(logits.chunks_exact(width));
    for ((weights, logits), cosines) in rows.zip(cosines.chunks_exact(width)) {
        for text in texts.windows(2) {
            let logits = &logits[text[0]..text[1]];
            let highest = logits.iter().fold(f32::NEG_INFINITY, |highest, logit| highest.max(*logit));
            for (weight, logit) in weights[text[0]..text[1]].iter_mut().zip(logits) {
                *weight = logit - highest;
            }
        }
        for weight in weights.iter_mut() {
            *weight = exp(*weight);
        }
        for text in texts.windows(2) {
            let weights = &mut weights[text[0]..text[1]];
            let (mut sum, mut part) = (0.0, 0.0);
            for (weight, cosine) in weights.iter().zip(&cosines[text[0]..text[1]]) {
                sum += weight;
                part += weight * cosine;
            }
            let rate = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            weights.iter_mut().for_each(|weight| *weight *= rate);
            parts.push(part * rate);
        }
    }
}

/// For each query text and column: the softmax over the text's rows as weights, and the weighted cosine.
#[inline(always)]
fn soft_over_query(
    texts: &[usize],
    width: usize,
    (logits, cosines): (&[f32], &[f32]),
    (weights, parts): (&mut [f32], &mut [f32]),
) {
    let (mut highest, mut sums) = (vec![0.0; width], vec![0.0; width]);
    for (text, parts) in texts.windows(2).zip(parts.chunks_exact_mut(width.max(1))) {
        let rows = || (text[0]..text[1]).map(|row| row * width..(row + 1) * width);
        highest.fill(f32::NEG_INFINITY);
        sums.fill(0.0);
        for row in rows() {
            for (highest, logit) in highest.iter_mut().zip(&logits[row]) {
                *highest = highest.max(*logit);
            }
        }
        for row in rows() {
            let (weights, logits, cosines) = (&mut weights[row.clone()], &logits[row.clone()], &cosines[row]);
            for column in 0..width {
                weights[column] = exp(logits[column] - highest[column]);
                sums[column] += weights[column];
                parts[column] += weights[column] * cosines[column];
            }
        }
        for column in 0..width {
            sums[column] = if sums[column] > 0.0 { 1.0 / sums[column] } else { 0.0 };
            parts[column] *= sums[column];
        }
        for row in rows() {
            for (weight, rate) in weights[row].iter_mut().zip(&sums) {
                *weight *= rate;
            }
        }
    }
}
