//! Scores of all pairs of two lists of texts, forward and back, for every scorer that serves.
//!
//! With token states `q_a` and `y_b`, `D_ab` their dot product and `C_ab` their cosine, a soft scorer is `sum A_ab C_ab` with `A`
//! the softmax of the logits. Given the slope `g` of a pair's score, `dC_ab = g A_ab` and `dlogit_ab = g A_ab (C_ab - s)`, where
//! `s` is the part of the score that the softmax of `b` belongs to; both go back to `D` and the lengths.
//!
//! Targets lie in panels of sixteen texts of nearly equal length, token by token and text by text: a softmax over the tokens of
//! sixteen targets is then a loop over vectors of sixteen numbers, without a sum across one.
//!
//! Products of a block of queries and a block of targets are made, used and forgotten, and made again on the way back: memory
//! grows with the tokens and with the scores, never with tokens times tokens.

use crate::matrix::{Matrix, add, exp, product, wide, zeros};
use crate::network::Batch;
use crate::threads::Threads;
use std::ops::Range;
use uwe::{Axis, Logits, Pooling, Reduction, Scorer, Scoring};

/// Query tokens and target tokens of a block of products.
const QUERY_BLOCK: usize = 96;
const TARGET_BLOCK: usize = 768;
/// Groups of query blocks whose target gradients are added up apart.
const GROUPS: usize = 8;
/// Texts of a panel.
const LANES: usize = 16;
/// Added to the logit of what is no token.
const NOTHING: f32 = -1e30;
/// A weight of less than `e` to this is none: beside the largest, 1, it is below the last digit. Without a floor it would be so small that
/// processors multiply it a hundred times more slowly.
const LEAST_LOGIT: f32 = -30.0;
/// The least slope of a score that goes back, for the same reason.
const LEAST_SLOPE: f32 = 1e-20;

type Lane = [f32; LANES];

/// How a softmax or a maximum runs; one over both sides is a pass of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
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
    pub(crate) form: Form,
    pub(crate) temperature: f32,
    pub(crate) unit_query: bool,
    pub(crate) unit_target: bool,
    pub(crate) mean: bool,
    /// What its scores count for in their pair's.
    pub(crate) part: f32,
}

/// A scorer as passes whose scores add up.
#[derive(Clone, Debug)]
pub(crate) struct ScorerPasses {
    pub(crate) passes: Vec<Pass>,
    pub(crate) pools_query: bool,
    pub(crate) pools_target: bool,
}

impl ScorerPasses {
    pub(crate) fn new(scorer: &Scorer) -> Self {
        let pass = |form, temperature, logits: Logits, mean| Pass {
            form,
            temperature,
            unit_query: logits == Logits::Cosine,
            unit_target: logits != Logits::Raw,
            mean,
            part: 1.0,
        };
        let passes = match *scorer {
            Scorer::SoftLateInteraction { temperature, logits, axis, reduction } => {
                let forms = match axis {
                    Axis::Target => vec![Form::OverTarget],
                    Axis::Query => vec![Form::OverQuery],
                    Axis::Both => vec![Form::OverTarget, Form::OverQuery],
                };
                let part = 1.0 / forms.len() as f32;
                let pass =
                    |form| Pass { part, ..pass(form, temperature, logits, reduction == Reduction::Mean) };
                forms.into_iter().map(pass).collect()
            }
            Scorer::MaxSim { reduction } => {
                vec![pass(Form::Maximum, 1.0, Logits::Raw, reduction == Reduction::Mean)]
            }
            Scorer::SoftPooled { temperature, logits } => {
                vec![pass(Form::OverQuery, temperature, logits, false)]
            }
            Scorer::Cosine => vec![pass(Form::Maximum, 1.0, Logits::Raw, false)],
        };
        let pools_target = matches!(scorer, Scorer::SoftPooled { .. } | Scorer::Cosine);
        Self { passes, pools_query: *scorer == Scorer::Cosine, pools_target }
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

/// The counted vectors of some texts of a batch, one text after the other.
pub(crate) struct Vectors {
    pub(crate) values: Vec<f32>,
    /// Where each text starts; then the number of vectors.
    pub(crate) offsets: Vec<usize>,
    pub(crate) width: usize,
    counted: Counted,
    texts: Vec<usize>,
}

impl Vectors {
    fn new(batch: &Batch, states: &[f32], width: usize, texts: &[usize], counted: Counted) -> Self {
        let mut vectors =
            Self { values: Vec::new(), offsets: vec![0], width, counted, texts: texts.to_vec() };
        for text in texts {
            let tokens = batch.tokens(*text);
            match counted {
                Counted::Tokens(before, after) => {
                    let own = tokens.start + before..(tokens.end - after).max(tokens.start + before);
                    vectors.values.extend_from_slice(&states[own.start * width..own.end * width]);
                }
                Counted::Pooled(Pooling::FirstToken) => {
                    let own = tokens.start * width..(tokens.start + 1) * width;
                    vectors.values.extend_from_slice(&states[own]);
                }
                Counted::Pooled(Pooling::Mean) => {
                    let start = vectors.values.len();
                    vectors.values.resize(start + width, 0.0);
                    for token in tokens.clone() {
                        add(&mut vectors.values[start..], &states[token * width..(token + 1) * width]);
                    }
                    vectors.values[start..].iter_mut().for_each(|value| *value /= tokens.len() as f32);
                }
            }
            vectors.offsets.push(vectors.values.len() / width);
        }
        vectors
    }

    pub(crate) fn length(&self, text: usize) -> usize {
        self.offsets[text + 1] - self.offsets[text]
    }

    /// Adds the gradient of the vectors to that of the token states.
    fn scatter(&self, batch: &Batch, gradient: &[f32], to_states: &mut [f32]) {
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

/// Reciprocal length of each vector; 0 for one of length 0.
fn inverse_lengths(values: &[f32], width: usize) -> Vec<f32> {
    let inverse = |vector: &[f32]| {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 { 1.0 / length } else { 0.0 }
    };
    values.chunks_exact(width).map(inverse).collect()
}

/// Texts as queries: their vectors in order.
pub(crate) struct Queries {
    vectors: Vectors,
    inverse: Vec<f32>,
}

/// Sixteen texts as targets.
struct Panel {
    /// The text of each lane; fewer than sixteen in the last panel.
    texts: Vec<usize>,
    /// Vectors of the longest.
    length: usize,
    /// Its first row among all panels' vectors.
    first: usize,
}

/// Texts as targets: panels of sixteen, each vector by vector and text by text.
pub(crate) struct Targets {
    vectors: Vectors,
    panels: Vec<Panel>,
    /// Vectors in the order of the panels; zeros where a text has no such vector.
    values: Vec<f32>,
    inverse: Vec<f32>,
    /// 0 for a vector, [`NOTHING`] where there is none.
    bias: Vec<f32>,
}

impl Queries {
    pub(crate) fn new(
        batch: &Batch,
        states: &[f32],
        width: usize,
        texts: &[usize],
        counted: Counted,
    ) -> Self {
        let vectors = Vectors::new(batch, states, width, texts, counted);
        let inverse = inverse_lengths(&vectors.values, width);
        Self { vectors, inverse }
    }

    pub(crate) fn len(&self) -> usize {
        self.vectors.texts.len()
    }

    /// The vectors, text by text.
    #[cfg(feature = "device")]
    pub(crate) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// The vectors, each of length 1.
    pub(crate) fn unit_vectors(self) -> Vec<f32> {
        let mut values = self.vectors.values;
        let rows = values.chunks_exact_mut(self.vectors.width).zip(&self.inverse);
        rows.for_each(|(row, inverse)| row.iter_mut().for_each(|value| *value *= inverse));
        values
    }

    /// Adds the gradient of the vectors to that of the token states.
    pub(crate) fn scatter(&self, batch: &Batch, gradient: &[f32], to_states: &mut [f32]) {
        self.vectors.scatter(batch, gradient, to_states);
    }

    /// Blocks of whole texts of about [`QUERY_BLOCK`] vectors.
    fn blocks(&self) -> Vec<Range<usize>> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for text in 0..self.len() {
            let end = text + 1;
            let offsets = &self.vectors.offsets;
            if end == self.len() || offsets[end + 1] - offsets[start] > QUERY_BLOCK {
                blocks.push(start..end);
                start = end;
            }
        }
        blocks
    }

    fn rows(&self, texts: &Range<usize>) -> (&[f32], Range<usize>) {
        let rows = self.vectors.offsets[texts.start]..self.vectors.offsets[texts.end];
        let width = self.vectors.width;
        (&self.vectors.values[rows.start * width..rows.end * width], rows)
    }
}

impl Targets {
    pub(crate) fn new(
        batch: &Batch,
        states: &[f32],
        width: usize,
        texts: &[usize],
        counted: Counted,
    ) -> Self {
        let vectors = Vectors::new(batch, states, width, texts, counted);
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|text| (vectors.length(*text), *text));
        let mut targets =
            Self { vectors, panels: Vec::new(), values: Vec::new(), inverse: Vec::new(), bias: Vec::new() };
        for texts in order.chunks(LANES) {
            let length = texts.iter().map(|text| targets.vectors.length(*text)).max().unwrap_or(0);
            let first = targets.bias.len();
            for place in 0..length {
                for lane in 0..LANES {
                    let text = texts.get(lane).filter(|text| place < targets.vectors.length(**text));
                    match text {
                        Some(text) => {
                            let row = (targets.vectors.offsets[*text] + place) * width;
                            targets.values.extend_from_slice(&targets.vectors.values[row..row + width]);
                            targets.bias.push(0.0);
                        }
                        None => {
                            targets.values.resize(targets.values.len() + width, 0.0);
                            targets.bias.push(NOTHING);
                        }
                    }
                }
            }
            targets.panels.push(Panel { texts: texts.to_vec(), length, first });
        }
        targets.inverse = inverse_lengths(&targets.values, width);
        targets
    }

    pub(crate) fn len(&self) -> usize {
        self.vectors.texts.len()
    }

    /// Blocks of whole panels of about [`TARGET_BLOCK`] vectors.
    fn blocks(&self) -> Vec<Range<usize>> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for panel in 0..self.panels.len() {
            let end = panel + 1;
            let rows = |panel: usize| self.panels.get(panel).map_or(self.bias.len(), |panel| panel.first);
            if end == self.panels.len() || rows(end + 1) - rows(start) > TARGET_BLOCK {
                blocks.push(start..end);
                start = end;
            }
        }
        blocks
    }

    fn rows(&self, panels: &Range<usize>) -> (&[f32], Range<usize>) {
        let end = self.panels.get(panels.end).map_or(self.bias.len(), |panel| panel.first);
        let rows = self.panels[panels.start].first..end;
        let width = self.vectors.width;
        (&self.values[rows.start * width..rows.end * width], rows)
    }

    /// The vectors, text by text.
    #[cfg(feature = "device")]
    pub(crate) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// Adds the gradient of the vectors to that of the token states.
    pub(crate) fn scatter(&self, batch: &Batch, gradient: &[f32], to_states: &mut [f32]) {
        self.vectors.scatter(batch, gradient, to_states);
    }

    /// The gradient of the panels' vectors, text by text.
    pub(crate) fn out_of_panels(&self, gradient: &[f32]) -> Vec<f32> {
        let width = self.vectors.width;
        let mut own = zeros(self.vectors.values.len());
        for panel in &self.panels {
            for (lane, text) in panel.texts.iter().enumerate() {
                for place in 0..self.vectors.length(*text) {
                    let from = (panel.first + place * LANES + lane) * width;
                    let to = (self.vectors.offsets[*text] + place) * width;
                    own[to..to + width].copy_from_slice(&gradient[from..from + width]);
                }
            }
        }
        own
    }
}

/// Scores of all pairs, `queries x targets`.
pub(crate) fn scores(passes: &[Pass], queries: &Queries, targets: &Targets, threads: &Threads) -> Vec<f32> {
    let target_blocks = targets.blocks();
    let rows = threads.map(queries.blocks(), |texts| {
        let mut rows = zeros(texts.len() * targets.len());
        let mut block = Block::default();
        for panels in &target_blocks {
            block.multiply((queries, &texts), (targets, panels));
            for pass in passes {
                block.add_scores(pass, (queries, &texts), (targets, panels), &mut rows);
            }
        }
        rows
    });
    rows.concat()
}

/// Gradients of the queries' vectors and of the targets' panels, from those of the scores.
pub(crate) fn scores_back(
    passes: &[Pass],
    queries: &Queries,
    targets: &Targets,
    slopes: &[f32],
    threads: &Threads,
) -> (Vec<f32>, Vec<f32>) {
    let width = queries.vectors.width;
    let target_blocks = targets.blocks();
    let mut blocks = queries.blocks();
    let each = blocks.len().div_ceil(GROUPS).max(1);
    let mut groups = Vec::new();
    while !blocks.is_empty() {
        let rest = blocks.split_off(each.min(blocks.len()));
        groups.push(std::mem::replace(&mut blocks, rest));
    }
    let made = threads.map(groups, |group| {
        let mut to_queries = Vec::new();
        let mut to_targets = threads.buffers().zeros(targets.values.len());
        // How much of each vector's own direction has to be taken off again: the gradient of its length.
        let (mut query_lengths, mut target_lengths) = (Vec::new(), zeros(targets.inverse.len()));
        let mut block = Block::default();
        for texts in &group {
            let (vectors, rows) = queries.rows(texts);
            let mut own = zeros(vectors.len());
            let mut lengths = zeros(rows.len());
            for panels in &target_blocks {
                let (others, columns) = targets.rows(panels);
                block.multiply((queries, texts), (targets, panels));
                let of_lengths = (&mut lengths[..], &mut target_lengths[columns.clone()]);
                block.gradient.clear();
                block.gradient.resize(block.dots.len(), 0.0);
                for pass in passes {
                    let of_lengths = (&mut *of_lengths.0, &mut *of_lengths.1);
                    block.add_back(pass, ((queries, texts), (targets, panels)), slopes, of_lengths);
                }
                let gradient = Matrix::new(&block.gradient, columns.len());
                product(gradient, Matrix::new(others, width), &mut own, true);
                let to = &mut to_targets[columns.start * width..columns.end * width];
                product(gradient.t(), Matrix::new(vectors, width), to, true);
            }
            to_queries.extend(own);
            query_lengths.extend(lengths);
        }
        (to_queries, query_lengths, to_targets, target_lengths)
    });
    let mut to_queries = Vec::with_capacity(queries.vectors.values.len());
    let mut query_lengths = Vec::with_capacity(queries.inverse.len());
    let mut to_targets = zeros(targets.values.len());
    let mut target_lengths = zeros(targets.inverse.len());
    for (own, own_lengths, others, lengths) in made {
        to_queries.extend(own);
        query_lengths.extend(own_lengths);
        add(&mut to_targets, &others);
        threads.buffers().give(others);
        add(&mut target_lengths, &lengths);
    }
    take_lengths_off((&queries.vectors.values, width), &queries.inverse, &query_lengths, &mut to_queries);
    take_lengths_off((&targets.values, width), &targets.inverse, &target_lengths, &mut to_targets);
    (to_queries, to_targets)
}

fn take_lengths_off(
    (vectors, width): (&[f32], usize),
    inverse: &[f32],
    lengths: &[f32],
    gradient: &mut [f32],
) {
    let rows = gradient.chunks_exact_mut(width).zip(vectors.chunks_exact(width));
    for ((gradient, vector), (length, inverse)) in rows.zip(lengths.iter().zip(inverse)) {
        let factor = length * inverse * inverse;
        gradient.iter_mut().zip(vector).for_each(|(gradient, value)| *gradient -= factor * value);
    }
}

type SomeQueries<'a> = (&'a Queries, &'a Range<usize>);
type SomeTargets<'a> = (&'a Targets, &'a Range<usize>);

/// Products of a block of queries with a block of targets; kept from block to block.
#[derive(Default)]
struct Block {
    dots: Vec<f32>,
    /// Of the dot products.
    gradient: Vec<f32>,
    /// Attention weights of one softmax.
    weights: Vec<Lane>,
}

/// What the loops need of a row: the rates that make cosines and logits of its dot products.
struct Row {
    inverse: f32,
    logit_rate: f32,
}

impl Row {
    fn new(pass: &Pass, inverse: f32) -> Self {
        let rate = 1.0 / pass.temperature;
        Self { inverse, logit_rate: if pass.unit_query { rate * inverse } else { rate } }
    }
}

/// Sixteen neighbouring entries.
#[inline(always)]
fn lane(values: &[f32], first: usize) -> &Lane {
    // The length is checked once for all sixteen.
    values[first..].first_chunk().unwrap_or(&[0.0; LANES])
}

/// Cosines and logits of sixteen dot products.
#[inline(always)]
fn cosines_and_logits(pass: &Pass, row: &Row, dots: &Lane, inverse: &Lane, bias: &Lane) -> (Lane, Lane) {
    let (mut cosines, mut logits) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        cosines[i] = dots[i] * row.inverse * inverse[i];
        let rate = if pass.unit_target { row.logit_rate * inverse[i] } else { row.logit_rate };
        // A maximum is one over cosines.
        logits[i] = if pass.form == Form::Maximum { cosines[i] } else { dots[i] * rate } + bias[i];
    }
    (cosines, logits)
}

/// The weight of a logit, from its distance to the highest.
#[inline(always)]
fn weight(distance: f32) -> f32 {
    let weight = exp(distance);
    if distance < LEAST_LOGIT { 0.0 } else { weight }
}

/// One over each sum; 0 for a sum of 0.
#[inline(always)]
fn reciprocal(sums: &Lane) -> Lane {
    let mut rates = [0.0; LANES];
    for i in 0..LANES {
        rates[i] = if sums[i] > 0.0 { 1.0 / sums[i] } else { 0.0 };
    }
    rates
}

/// For the softmax over one query token's row of a panel: weights into `weights`, and the weighted cosine of each lane.
#[inline(always)]
fn soft_row(
    pass: &Pass,
    row: &Row,
    dots: &[f32],
    (inverse, bias): (&[f32], &[f32]),
    weights: &mut Vec<Lane>,
) -> Lane {
    let length = dots.len() / LANES;
    let mut highest = [NOTHING; LANES];
    weights.clear();
    for place in 0..length {
        let at = place * LANES;
        let (_, logits) = cosines_and_logits(pass, row, lane(dots, at), lane(inverse, at), lane(bias, at));
        for i in 0..LANES {
            highest[i] = if logits[i] > highest[i] { logits[i] } else { highest[i] };
        }
        weights.push(logits);
    }
    let (mut sums, mut parts) = ([0.0; LANES], [0.0; LANES]);
    for (place, weights) in weights.iter_mut().enumerate() {
        let at = place * LANES;
        let (dots, inverse, bias) = (lane(dots, at), lane(inverse, at), lane(bias, at));
        for i in 0..LANES {
            let weight = match pass.form {
                // The first of the largest counts, alone.
                Form::Maximum => f32::from(u8::from(weights[i] == highest[i] && sums[i] == 0.0)),
                Form::OverTarget | Form::OverQuery => weight(weights[i] - highest[i]),
            };
            let weight = if bias[i] < 0.0 { 0.0 } else { weight };
            weights[i] = weight;
            sums[i] += weight;
            parts[i] += weight * dots[i] * row.inverse * inverse[i];
        }
    }
    let rates = reciprocal(&sums);
    for weights in weights.iter_mut() {
        for i in 0..LANES {
            weights[i] *= rates[i];
        }
    }
    for i in 0..LANES {
        parts[i] *= rates[i];
    }
    parts
}

/// For the softmax over a query's rows, of sixteen columns: weights into `weights`, and the weighted cosine of each lane.
#[inline(always)]
fn soft_columns(
    pass: &Pass,
    rows: &[Row],
    (dots, start, stride): (&[f32], usize, usize),
    (inverse, bias): (&Lane, &Lane),
    weights: &mut Vec<Lane>,
) -> Lane {
    let mut highest = [NOTHING; LANES];
    weights.clear();
    for (index, row) in rows.iter().enumerate() {
        let (_, logits) = cosines_and_logits(pass, row, lane(dots, start + index * stride), inverse, bias);
        for i in 0..LANES {
            highest[i] = if logits[i] > highest[i] { logits[i] } else { highest[i] };
        }
        weights.push(logits);
    }
    let (mut sums, mut parts) = ([0.0; LANES], [0.0; LANES]);
    for (index, (row, weights)) in rows.iter().zip(weights.iter_mut()).enumerate() {
        let dots = lane(dots, start + index * stride);
        for i in 0..LANES {
            let weight = if bias[i] < 0.0 { 0.0 } else { weight(weights[i] - highest[i]) };
            weights[i] = weight;
            sums[i] += weight;
            parts[i] += weight * dots[i] * row.inverse * inverse[i];
        }
    }
    let rates = reciprocal(&sums);
    for weights in weights.iter_mut() {
        for i in 0..LANES {
            weights[i] *= rates[i];
        }
    }
    for i in 0..LANES {
        parts[i] *= rates[i];
    }
    parts
}

impl Block {
    /// Dot products of all rows and columns.
    fn multiply(&mut self, (queries, texts): SomeQueries<'_>, (targets, panels): SomeTargets<'_>) {
        let (left, rows) = queries.rows(texts);
        let (right, columns) = targets.rows(panels);
        let width = queries.vectors.width;
        self.dots.resize(rows.len() * columns.len(), 0.0);
        product(Matrix::new(left, width), Matrix::new(right, width).t(), &mut self.dots, false);
    }

    /// Adds the block's scores to the rows of its queries.
    fn add_scores(
        &mut self,
        pass: &Pass,
        (queries, texts): SomeQueries<'_>,
        (targets, panels): SomeTargets<'_>,
        scores: &mut [f32],
    ) {
        let columns = targets.rows(panels).1;
        let Self { dots, weights, .. } = self;
        wide(
            #[inline(always)]
            || {
                for (index, text) in texts.clone().enumerate() {
                    let rows = text_rows(pass, queries, texts, text);
                    for panel in &targets.panels[panels.clone()] {
                        let place = Place { panel, columns: &columns, rows: rows.0.clone(), rates: &rows.1 };
                        let mut sums = [0.0; LANES];
                        place.each_softmax(
                            pass,
                            (targets, dots),
                            weights,
                            #[inline(always)]
                            |parts, _, _| {
                                for i in 0..LANES {
                                    sums[i] += parts[i];
                                }
                            },
                        );
                        for (sum, other) in sums.iter().zip(&panel.texts) {
                            scores[index * targets.len() + other] +=
                                sum * share(pass, rows.1.len(), targets.vectors.length(*other));
                        }
                    }
                }
            },
        );
    }

    /// Adds to the gradient of the dot products and to those of the lengths.
    fn add_back(
        &mut self,
        pass: &Pass,
        ((queries, texts), (targets, panels)): (SomeQueries<'_>, SomeTargets<'_>),
        slopes: &[f32],
        (query_lengths, target_lengths): (&mut [f32], &mut [f32]),
    ) {
        let columns = targets.rows(panels).1;
        let Self { dots, gradient, weights } = self;
        wide(
            #[inline(always)]
            || {
                for text in texts.clone() {
                    let rows = text_rows(pass, queries, texts, text);
                    for panel in &targets.panels[panels.clone()] {
                        let mut slope = [0.0; LANES];
                        for (slope, other) in slope.iter_mut().zip(&panel.texts) {
                            let found = slopes[text * targets.len() + other]
                                * share(pass, rows.1.len(), targets.vectors.length(*other));
                            *slope = if found.abs() < LEAST_SLOPE { 0.0 } else { found };
                        }
                        let place = Place { panel, columns: &columns, rows: rows.0.clone(), rates: &rows.1 };
                        place.each_softmax(
                            pass,
                            (targets, dots),
                            weights,
                            #[inline(always)]
                            |parts, weights, at| {
                                for (index, weights) in weights.iter().enumerate() {
                                    let (row, column) = at.place(index);
                                    let start = row * columns.len() + column;
                                    let own = &rows.1[row - rows.0.start];
                                    let inverse = lane(&targets.inverse, columns.start + column);
                                    let bias = lane(&targets.bias, columns.start + column);
                                    let (cosines, logits) =
                                        cosines_and_logits(pass, own, lane(dots, start), inverse, bias);
                                    let soft = pass.form != Form::Maximum;
                                    let mut own_length = 0.0;
                                    let to = &mut gradient[start..start + LANES];
                                    let lengths = &mut target_lengths[column..column + LANES];
                                    for i in 0..LANES {
                                        let to_cosine = slope[i] * weights[i];
                                        let to_logit =
                                            if soft { to_cosine * (cosines[i] - parts[i]) } else { 0.0 };
                                        let rate =
                                            if pass.unit_target { inverse[i] } else { 1.0 } * own.logit_rate;
                                        to[i] += to_cosine * own.inverse * inverse[i] + to_logit * rate;
                                        let by_cosine = to_cosine * cosines[i];
                                        let by_logit = to_logit * (logits[i] - bias[i]);
                                        own_length +=
                                            by_cosine + if pass.unit_query { by_logit } else { 0.0 };
                                        lengths[i] +=
                                            by_cosine + if pass.unit_target { by_logit } else { 0.0 };
                                    }
                                    query_lengths[row] += own_length;
                                }
                            },
                        );
                    }
                }
            },
        );
    }
}

/// A query's rows in its block, with their rates.
fn text_rows(pass: &Pass, queries: &Queries, texts: &Range<usize>, text: usize) -> (Range<usize>, Vec<Row>) {
    let offsets = &queries.vectors.offsets;
    let rows = offsets[text] - offsets[texts.start]..offsets[text + 1] - offsets[texts.start];
    let rates =
        queries.inverse[offsets[text]..offsets[text + 1]].iter().map(|inverse| Row::new(pass, *inverse));
    (rows, rates.collect())
}

/// What a softmax's part counts for in its pair's score.
fn share(pass: &Pass, query_vectors: usize, target_vectors: usize) -> f32 {
    let count = if pass.form == Form::OverQuery { target_vectors } else { query_vectors };
    match () {
        () if query_vectors == 0 || target_vectors == 0 => 0.0,
        () if pass.mean => pass.part / count as f32,
        () => pass.part,
    }
}

/// Where the weights of a softmax stand in a block: (row, column) of the first, and the way to the next.
struct Steps {
    first: (usize, usize),
    each: (usize, usize),
}

impl Steps {
    #[inline(always)]
    fn place(&self, index: usize) -> (usize, usize) {
        (self.first.0 + index * self.each.0, self.first.1 + index * self.each.1)
    }
}

/// One query and one panel in a block.
struct Place<'a> {
    panel: &'a Panel,
    /// The block's columns among all panels' vectors.
    columns: &'a Range<usize>,
    /// The query's rows in the block.
    rows: Range<usize>,
    /// Their rates.
    rates: &'a [Row],
}

impl Place<'_> {
    /// Calls `each` for every softmax of the pair, sixteen targets at a time: with its parts of the scores, its weights, and where
    /// each of them stands (row, first column).
    #[inline(always)]
    fn each_softmax(
        &self,
        pass: &Pass,
        (targets, dots): (&Targets, &[f32]),
        weights: &mut Vec<Lane>,
        mut each: impl FnMut(&Lane, &[Lane], &Steps),
    ) {
        let stride = self.columns.len();
        let first = self.panel.first - self.columns.start;
        let all = self.panel.first..self.panel.first + self.panel.length * LANES;
        if pass.form == Form::OverQuery {
            for place in 0..self.panel.length {
                let column = first + place * LANES;
                let sides = (
                    lane(&targets.inverse, self.panel.first + place * LANES),
                    lane(&targets.bias, self.panel.first + place * LANES),
                );
                let at = (dots, self.rows.start * stride + column, stride);
                let mut parts = soft_columns(pass, self.rates, at, sides, weights);
                for (part, bias) in parts.iter_mut().zip(sides.1) {
                    *part = if *bias < 0.0 { 0.0 } else { *part };
                }
                each(&parts, weights, &Steps { first: (self.rows.start, column), each: (1, 0) });
            }
            return;
        }
        for (row, rate) in self.rows.clone().zip(self.rates) {
            let start = row * stride + first;
            let own = &dots[start..start + all.len()];
            let sides = (&targets.inverse[all.clone()], &targets.bias[all.clone()]);
            let parts = soft_row(pass, rate, own, sides, weights);
            each(&parts, weights, &Steps { first: (row, first), each: (0, LANES) });
        }
    }
}
