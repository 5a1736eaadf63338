//! The encoder for training: BERT and MPNet forward and back over a ragged batch, without padding.
//!
//! A batch is cut into blocks of whole texts. A block goes through all layers on one thread, and its tape keeps what the way
//! back needs. Gradients are added up in a fixed number of groups of blocks and the groups in their order, so that
//! neither loss nor gradient depends on the number of threads.

use crate::buffers::Buffers;
use crate::error::Result;
use crate::interaction::{Pass, Queries, Targets, scores, scores_back};
use crate::matrix::{
    Matrix, add, add_scaled, add_to_rows, dot, gelu_backward, gelu_forward, norm_backward, norm_forward,
    product, sum_rows, wide, zeros,
};
use crate::parameters::Parameters;
use crate::threads::Threads;
use std::ops::Range;
use uwe::{Architecture, ModelConfig, distance_bucket};

/// Tokens of a block: a block's layer fits the second-level cache, and products are large enough.
const BLOCK: usize = 1024;
/// Groups of blocks whose gradients are added up apart: the most threads that the way back can use. Each has gradients of its own,
/// so that a small batch has few.
const GROUPS: std::ops::RangeInclusive<usize> = 2..=16;
const GROUP_BLOCKS: usize = 4;

/// Texts as token ids, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Ids of all tokens.
    pub ids: Vec<u32>,
    /// Where each text starts; then the number of tokens.
    pub offsets: Vec<usize>,
}

impl Batch {
    /// Texts as token ids.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self { ids: Vec::new(), offsets: vec![0] };
        for ids in texts {
            batch.ids.extend(ids);
            batch.offsets.push(batch.ids.len());
        }
        batch
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Tokens of a text.
    pub fn tokens(&self, text: usize) -> Range<usize> {
        self.offsets[text]..self.offsets[text + 1]
    }

    /// Whole texts, about [`BLOCK`] tokens at a time.
    fn blocks(&self) -> Vec<Range<usize>> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for text in 0..self.texts() {
            let end = text + 1;
            if end == self.texts() || self.offsets[end + 1] - self.offsets[start] > BLOCK {
                blocks.push(start..end);
                start = end;
            }
        }
        blocks
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LinearAt {
    pub(crate) weight: Range<usize>,
    pub(crate) bias: Range<usize>,
    pub(crate) inputs: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct NormAt {
    pub(crate) scale: Range<usize>,
    pub(crate) shift: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct LayerAt {
    /// Queries, keys and values, one below the other.
    pub(crate) project: LinearAt,
    pub(crate) mix: LinearAt,
    pub(crate) attention_norm: NormAt,
    pub(crate) widen: LinearAt,
    pub(crate) narrow: LinearAt,
    pub(crate) output_norm: NormAt,
}

/// Where each part of the network stands in the flat parameters.
#[derive(Debug)]
pub struct Network {
    pub(crate) config: ModelConfig,
    pub(crate) words: Range<usize>,
    pub(crate) positions: Range<usize>,
    /// BERT: the row of token type 0.
    pub(crate) kind: Option<Range<usize>>,
    pub(crate) embedding_norm: NormAt,
    /// MPNet: `buckets x heads`.
    pub(crate) distances: Option<Range<usize>>,
    pub(crate) layers: Vec<LayerAt>,
    threads: Threads,
    /// Where the passes run, if not here.
    #[cfg(feature = "device")]
    device: Option<crate::device::Device>,
}

/// What the way back needs of one layer of a block.
struct LayerTape {
    input: Vec<f32>,
    projected: Vec<f32>,
    /// Attention weights, text by text and head by head.
    weights: Vec<f32>,
    context: Vec<f32>,
    attention_normalised: Vec<f32>,
    attention_rates: Vec<f32>,
    wide: Vec<f32>,
    output_normalised: Vec<f32>,
    output_rates: Vec<f32>,
}

/// What the way back needs of a block.
struct Tape {
    normalised: Vec<f32>,
    rates: Vec<f32>,
    layers: Vec<LayerTape>,
}

/// Token states of a batch, with the tapes of its blocks if they were kept.
pub struct Forward {
    /// One row a token.
    pub states: Vec<f32>,
    tapes: Vec<Option<Tape>>,
    #[cfg(feature = "device")]
    kept: Option<crate::device::Kept>,
}

impl Network {
    /// Names of the tensors that the network uses, in the order in which [`Parameters`] must have them.
    pub fn order(config: &ModelConfig) -> Vec<String> {
        let bert = config.architecture == Architecture::Bert;
        let mut names: Vec<String> =
            ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"]
                .map(String::from)
                .into();
        names.push(
            if bert {
                "embeddings.token_type_embeddings.weight"
            } else {
                "encoder.relative_attention_bias.weight"
            }
            .into(),
        );
        let norm = |name: &str| [format!("{name}.weight"), format!("{name}.bias")];
        names.extend(norm("embeddings.LayerNorm"));
        let (parts, mix, attention_norm) = if bert {
            (["self.query", "self.key", "self.value"], "attention.output.dense", "attention.output.LayerNorm")
        } else {
            (["attn.q", "attn.k", "attn.v"], "attention.attn.o", "attention.LayerNorm")
        };
        for layer in 0..config.layers {
            let at = |name: &str| format!("encoder.layer.{layer}.{name}");
            for kind in ["weight", "bias"] {
                names.extend(parts.map(|part| at(&format!("attention.{part}.{kind}"))));
            }
            for part in [mix, attention_norm, "intermediate.dense", "output.dense", "output.LayerNorm"] {
                names.extend(norm(&at(part)));
            }
        }
        names
    }

    /// Finds the parts of a network among parameters that were read in [`Network::order`].
    ///
    /// # Errors
    /// [`crate::Error::Weights`] when a tensor has another shape than the configuration says.
    pub fn new(config: &ModelConfig, parameters: &Parameters, threads: Threads) -> Result<Self> {
        let hidden = config.hidden;
        let mut places = parameters.places.iter();
        let mut next = |shape: &[usize]| -> Result<Range<usize>> {
            let place = places.next();
            match place {
                Some(place) if place.shape == shape => Ok(place.range.clone()),
                _ => {
                    let name = place.map_or("nothing", |place| &place.name[..]);
                    let shape_found = place.map_or(&[][..], |place| &place.shape);
                    let problem =
                        format!("`{name}` has shape {shape_found:?}; the configuration asks for {shape:?}");
                    Err(crate::Error::Weights { path: "model.safetensors".into(), problem })
                }
            }
        };
        let words = next(&[config.vocabulary, hidden])?;
        let positions = next(&[config.positions, hidden])?;
        let (mut kind, mut distances) = (None, None);
        if config.architecture == Architecture::Bert {
            let rows = parameters.places.get(2).and_then(|place| place.shape.first().copied()).unwrap_or(2);
            let types = next(&[rows, hidden])?;
            kind = Some(types.start..types.start + hidden);
        } else {
            distances = Some(next(&[config.buckets, config.heads])?);
        }
        let embedding_norm = norm_at(&mut next, hidden)?;
        let mut layers = Vec::with_capacity(config.layers);
        for _ in 0..config.layers {
            let mut weights = Vec::new();
            for _ in 0..3 {
                weights.push(next(&[hidden, hidden])?);
            }
            let mut biases = Vec::new();
            for _ in 0..3 {
                biases.push(next(&[hidden])?);
            }
            let project = LinearAt {
                weight: weights[0].start..weights[2].end,
                bias: biases[0].start..biases[2].end,
                inputs: hidden,
            };
            let mix = linear_at(&mut next, hidden, hidden)?;
            let attention_norm = norm_at(&mut next, hidden)?;
            let widen = linear_at(&mut next, config.intermediate, hidden)?;
            let narrow = linear_at(&mut next, hidden, config.intermediate)?;
            let output_norm = norm_at(&mut next, hidden)?;
            layers.push(LayerAt { project, mix, attention_norm, widen, narrow, output_norm });
        }
        Ok(Self {
            config: config.clone(),
            words,
            positions,
            kind,
            embedding_norm,
            distances,
            layers,
            threads,
            #[cfg(feature = "device")]
            device: None,
        })
    }

    /// Has the passes run on a device.
    #[cfg(feature = "device")]
    #[must_use]
    pub fn on(self, device: Option<crate::device::Device>) -> Self {
        Self { device, ..self }
    }

    /// Width of a token state.
    pub fn hidden(&self) -> usize {
        self.config.hidden
    }

    /// The threads of a step.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Token states of a batch. With `keep`, the tapes are kept for the way back, else it makes them again (gradient caching):
    /// a third more work, and memory of one block a thread instead of the whole batch.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when a device fails.
    pub fn forward(&self, parameters: &[f32], batch: &Batch, keep: bool) -> Result<Forward> {
        #[cfg(feature = "device")]
        if let Some(device) = &self.device {
            let (states, kept) = device.passes().forward(self, parameters, batch, keep)?;
            return Ok(Forward { states, tapes: Vec::new(), kept });
        }
        let hidden = self.hidden();
        let blocks = batch.blocks();
        let made = self.threads.map(blocks, |block| {
            let (states, tape) = self.forward_block(parameters, batch, block);
            if keep {
                return (states, Some(tape));
            }
            tape.give(self.threads.buffers());
            (states, None)
        });
        let mut forward = Forward {
            states: Vec::with_capacity(batch.ids.len() * hidden),
            tapes: Vec::new(),
            #[cfg(feature = "device")]
            kept: None,
        };
        for (states, tape) in made {
            forward.states.extend_from_slice(&states);
            forward.tapes.push(tape);
            self.threads.buffers().give(states);
        }
        Ok(forward)
    }

    /// The gradient of all parameters, from that of the token states.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when a device fails.
    pub fn backward(
        &self,
        parameters: &[f32],
        batch: &Batch,
        forward: Forward,
        gradient: &[f32],
    ) -> Result<Vec<f32>> {
        #[cfg(feature = "device")]
        if let Some(device) = &self.device {
            return device.passes().backward(self, (parameters, batch), forward.kept, gradient);
        }
        let hidden = self.hidden();
        let mut blocks = batch.blocks().into_iter().zip(forward.tapes).collect::<Vec<_>>();
        drop(forward.states);
        let count = (blocks.len() / GROUP_BLOCKS).clamp(*GROUPS.start(), *GROUPS.end());
        let each = blocks.len().div_ceil(count).max(1);
        let mut groups = Vec::new();
        while !blocks.is_empty() {
            let rest = blocks.split_off(each.min(blocks.len()));
            groups.push(std::mem::replace(&mut blocks, rest));
        }
        // The word table's gradient touches few rows: each group lists its own.
        let made = self.threads.map(groups, |group| {
            let mut sums = self.threads.buffers().zeros(parameters.len() - self.words.len());
            let mut rows: Vec<(usize, Vec<f32>)> = Vec::new();
            for (block, tape) in group {
                let tape = tape.unwrap_or_else(|| {
                    let (states, tape) = self.forward_block(parameters, batch, block.clone());
                    self.threads.buffers().give(states);
                    tape
                });
                let tokens = batch.offsets[block.start] * hidden..batch.offsets[block.end] * hidden;
                let mut own = self.threads.buffers().take(tokens.len(), BLOCK * hidden);
                own.copy_from_slice(&gradient[tokens]);
                let to_words =
                    self.backward_block(parameters, (batch, block.clone()), (tape, own), &mut sums);
                rows.push((batch.offsets[block.start], to_words));
            }
            (sums, rows)
        });
        let mut total = zeros(parameters.len());
        for (sums, rows) in made {
            let shift = self.words.len();
            add(&mut total[..self.words.start], &sums[..self.words.start]);
            add(&mut total[self.words.end..], &sums[self.words.end - shift..]);
            self.threads.buffers().give(sums);
            for (first, rows) in rows {
                for (id, row) in batch.ids[first..].iter().zip(rows.chunks_exact(hidden)) {
                    let start = self.words.start + *id as usize * hidden;
                    add(&mut total[start..start + hidden], row);
                }
                self.threads.buffers().give(rows);
            }
        }
        Ok(total)
    }

    /// Scores of all pairs, `queries x targets`.
    pub(crate) fn scores(&self, passes: &[Pass], queries: &Queries, targets: &Targets) -> Result<Vec<f32>> {
        #[cfg(feature = "device")]
        if let Some(device) = &self.device {
            return device.passes().scores(passes, queries, targets);
        }
        Ok(scores(passes, queries, targets, &self.threads))
    }

    /// Gradients of the queries' and the targets' vectors, text by text, from those of the scores.
    pub(crate) fn scores_back(
        &self,
        passes: &[Pass],
        queries: &Queries,
        targets: &Targets,
        slopes: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        #[cfg(feature = "device")]
        if let Some(device) = &self.device {
            return device.passes().scores_back(passes, queries, targets, slopes);
        }
        let (to_queries, to_panels) = scores_back(passes, queries, targets, slopes, &self.threads);
        Ok((to_queries, targets.out_of_panels(&to_panels)))
    }

    fn forward_block(&self, parameters: &[f32], batch: &Batch, block: Range<usize>) -> (Vec<f32>, Tape) {
        let hidden = self.hidden();
        let first = batch.offsets[block.start];
        let offsets: Vec<usize> = batch.offsets[block.start..=block.end].iter().map(|o| o - first).collect();
        let tokens = offsets[offsets.len() - 1];
        let buffers = self.threads.buffers();
        let mut normalised = buffers.take(0, BLOCK * hidden);
        for text in block {
            for (position, id) in batch.ids[batch.tokens(text)].iter().enumerate() {
                let start = normalised.len();
                let word = self.words.start + *id as usize * hidden;
                normalised.extend_from_slice(&parameters[word..word + hidden]);
                let row = self.positions.start + (position + self.config.first_position) * hidden;
                add(&mut normalised[start..], &parameters[row..row + hidden]);
                if let Some(kind) = &self.kind {
                    add(&mut normalised[start..], &parameters[kind.clone()]);
                }
            }
        }
        let mut rates = zeros(tokens);
        let mut states = buffers.take(tokens * hidden, BLOCK * hidden);
        self.norm(parameters, &self.embedding_norm, &mut normalised, (&mut states, &mut rates));
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (output, tape) = self.forward_layer(parameters, layer, states, &offsets);
            layers.push(tape);
            states = output;
        }
        (states, Tape { normalised, rates, layers })
    }

    fn norm(&self, parameters: &[f32], at: &NormAt, values: &mut [f32], out: (&mut [f32], &mut [f32])) {
        let (scale, shift) = (&parameters[at.scale.clone()], &parameters[at.shift.clone()]);
        norm_forward(values, (scale, shift), self.config.epsilon, out);
    }

    fn forward_layer(
        &self,
        parameters: &[f32],
        layer: &LayerAt,
        input: Vec<f32>,
        offsets: &[usize],
    ) -> (Vec<f32>, LayerTape) {
        let tokens = offsets[offsets.len() - 1];
        let projected = linear(self.threads.buffers(), parameters, &layer.project, &input);
        let (context, weights) = self.attend(parameters, &projected, offsets);
        let mut attention_normalised = linear(self.threads.buffers(), parameters, &layer.mix, &context);
        add(&mut attention_normalised, &input);
        let room = BLOCK * self.hidden();
        let buffers = self.threads.buffers();
        let (mut middle, mut attention_rates) = (buffers.take(input.len(), room), zeros(tokens));
        let norm = &layer.attention_norm;
        self.norm(parameters, norm, &mut attention_normalised, (&mut middle, &mut attention_rates));
        let wide = linear(self.threads.buffers(), parameters, &layer.widen, &middle);
        let mut active = buffers.take(wide.len(), BLOCK * self.config.intermediate);
        gelu_forward(&wide, &mut active);
        let mut output_normalised = linear(self.threads.buffers(), parameters, &layer.narrow, &active);
        add(&mut output_normalised, &middle);
        buffers.give(active);
        buffers.give(middle);
        let (mut output, mut output_rates) = (buffers.take(input.len(), room), zeros(tokens));
        let norm = &layer.output_norm;
        self.norm(parameters, norm, &mut output_normalised, (&mut output, &mut output_rates));
        let tape = LayerTape {
            input,
            projected,
            weights,
            context,
            attention_normalised,
            attention_rates,
            wide,
            output_normalised,
            output_rates,
        };
        (output, tape)
    }

    /// Attention of every text: contexts, and the weights for the way back.
    fn attend(&self, parameters: &[f32], projected: &[f32], offsets: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let (hidden, heads) = (self.hidden(), self.config.heads);
        let width = hidden / heads;
        let scale = 1.0 / (width as f32).sqrt();
        let mut context = self.threads.buffers().take(projected.len() / 3, BLOCK * hidden);
        context.fill(0.0);
        let mut weights = Vec::new();
        wide(
            #[inline(always)]
            || {
                for text in offsets.windows(2) {
                    let length = text[1] - text[0];
                    let row = |place: usize, part: usize, head: usize| {
                        let start = (text[0] + place) * 3 * hidden + part * hidden + head * width;
                        &projected[start..start + width]
                    };
                    for head in 0..heads {
                        for i in 0..length {
                            let start = weights.len();
                            let mut highest = f32::NEG_INFINITY;
                            for j in 0..length {
                                let bias = self.bias(parameters, i, j, head);
                                let logit = dot(row(i, 0, head), row(j, 1, head)) * scale + bias;
                                highest = highest.max(logit);
                                weights.push(logit);
                            }
                            let weights = &mut weights[start..];
                            let mut sum = 0.0;
                            for weight in weights.iter_mut() {
                                *weight = crate::matrix::exp(*weight - highest);
                                sum += *weight;
                            }
                            let place = (text[0] + i) * hidden + head * width;
                            let out = &mut context[place..place + width];
                            for (j, weight) in weights.iter_mut().enumerate() {
                                *weight /= sum;
                                add_scaled(out, row(j, 2, head), *weight);
                            }
                        }
                    }
                }
            },
        );
        (context, weights)
    }

    /// MPNet's bias of a distance; 0 for BERT.
    #[inline(always)]
    fn bias(&self, parameters: &[f32], from: usize, to: usize, head: usize) -> f32 {
        self.distances.as_ref().map_or(0.0, |at| parameters[at.start + self.bias_place(from, to, head)])
    }

    fn bias_place(&self, from: usize, to: usize, head: usize) -> usize {
        self.bucket(from, to) * self.config.heads + head
    }

    /// MPNet's bucket of a distance.
    #[inline(always)]
    pub(crate) fn bucket(&self, from: usize, to: usize) -> usize {
        distance_bucket(to as i64 - from as i64, self.config.buckets)
    }

    /// Turns the gradient of contexts into that of the projections.
    fn attend_back(
        &self,
        tape: &LayerTape,
        gradient: &[f32],
        offsets: &[usize],
        mut to_bias: Option<&mut [f32]>,
    ) -> Vec<f32> {
        let (hidden, heads) = (self.hidden(), self.config.heads);
        let width = hidden / heads;
        let scale = 1.0 / (width as f32).sqrt();
        let mut to_projected = self.threads.buffers().take(tape.projected.len(), 3 * BLOCK * hidden);
        to_projected.fill(0.0);
        // Slopes of a row's weights, and the gradient of its query.
        let (mut slopes, mut own) = (Vec::new(), vec![0.0; width]);
        let mut first = 0;
        wide(
            #[inline(always)]
            || {
                for text in offsets.windows(2) {
                    let length = text[1] - text[0];
                    let at = |place: usize, part: usize, head: usize| {
                        (text[0] + place) * 3 * hidden + part * hidden + head * width
                    };
                    for head in 0..heads {
                        for i in 0..length {
                            let weights = &tape.weights[first..first + length];
                            first += length;
                            let place = (text[0] + i) * hidden + head * width;
                            let gradient = &gradient[place..place + width];
                            slopes.clear();
                            let mut along = 0.0;
                            for (j, weight) in weights.iter().enumerate() {
                                let value = at(j, 2, head);
                                let slope = dot(gradient, &tape.projected[value..value + width]);
                                along += weight * slope;
                                slopes.push(slope);
                                add_scaled(&mut to_projected[value..value + width], gradient, *weight);
                            }
                            let query = at(i, 0, head);
                            own.fill(0.0);
                            for (j, weight) in weights.iter().enumerate() {
                                let slope = weight * (slopes[j] - along);
                                if let Some(to_bias) = &mut to_bias {
                                    to_bias[self.bias_place(i, j, head)] += slope;
                                }
                                let slope = slope * scale;
                                let key = at(j, 1, head);
                                add_scaled(&mut own, &tape.projected[key..key + width], slope);
                                let query = &tape.projected[query..query + width];
                                add_scaled(&mut to_projected[key..key + width], query, slope);
                            }
                            to_projected[query..query + width].copy_from_slice(&own);
                        }
                    }
                }
            },
        );
        to_projected
    }

    /// Goes back through a block. Adds to `sums`, the gradient of all parameters but the word table; returns the gradient of the
    /// words' rows.
    fn backward_block(
        &self,
        parameters: &[f32],
        (batch, block): (&Batch, Range<usize>),
        (tape, mut gradient): (Tape, Vec<f32>),
        sums: &mut [f32],
    ) -> Vec<f32> {
        let first = batch.offsets[block.start];
        let offsets: Vec<usize> = batch.offsets[block.start..=block.end].iter().map(|o| o - first).collect();
        let mut to = Sums { parameters, sums, words: self.words.clone() };
        let Tape { normalised, rates, layers } = tape;
        for (layer, tape) in self.layers.iter().zip(layers).rev() {
            gradient = self.backward_layer(layer, (tape, &offsets), gradient, &mut to);
        }
        let norm = &self.embedding_norm;
        back_through_norm(norm, &mut gradient, (&normalised, &rates), &mut to);
        self.threads.buffers().give(normalised);
        let hidden = self.hidden();
        for text in offsets.windows(2) {
            let length = (text[1] - text[0]) * hidden;
            let start = self.positions.start + self.config.first_position * hidden;
            add(to.at(start..start + length), &gradient[text[0] * hidden..text[1] * hidden]);
        }
        if let Some(kind) = &self.kind {
            sum_rows(&gradient, to.at(kind.clone()));
        }
        gradient
    }

    fn backward_layer(
        &self,
        layer: &LayerAt,
        (mut tape, offsets): (LayerTape, &[usize]),
        mut gradient: Vec<f32>,
        to: &mut Sums<'_>,
    ) -> Vec<f32> {
        let parameters = to.parameters;
        let output = (&tape.output_normalised[..], &tape.output_rates[..]);
        back_through_norm(&layer.output_norm, &mut gradient, output, to);
        let mut to_wide = back_through_weights(self.threads.buffers(), parameters, &layer.narrow, &gradient);
        gelu_backward(&mut tape.wide, &mut to_wide);
        collect(&layer.narrow, &gradient, &tape.wide, to);
        // What the first normalisation gave is made again: a multiplication and an addition.
        let buffers = self.threads.buffers();
        let mut middle = buffers.take(gradient.len(), BLOCK * self.hidden());
        middle.copy_from_slice(&tape.attention_normalised);
        let norm = &layer.attention_norm;
        let (scale, shift) = (&parameters[norm.scale.clone()], &parameters[norm.shift.clone()]);
        for row in middle.chunks_exact_mut(scale.len()) {
            for (value, (scale, shift)) in row.iter_mut().zip(scale.iter().zip(shift)) {
                *value = *value * scale + shift;
            }
        }
        collect(&layer.widen, &to_wide, &middle, to);
        product(
            Matrix::new(&to_wide, self.config.intermediate),
            Matrix::new(&parameters[layer.widen.weight.clone()], layer.widen.inputs),
            &mut gradient,
            true,
        );
        let attention = (&tape.attention_normalised[..], &tape.attention_rates[..]);
        back_through_norm(norm, &mut gradient, attention, to);
        let to_context = back_through_weights(self.threads.buffers(), parameters, &layer.mix, &gradient);
        collect(&layer.mix, &gradient, &tape.context, to);
        let to_bias = self.distances.clone().map(|at| to.at(at));
        let to_projected = self.attend_back(&tape, &to_context, offsets, to_bias);
        collect(&layer.project, &to_projected, &tape.input, to);
        product(
            Matrix::new(&to_projected, 3 * self.hidden()),
            Matrix::new(&parameters[layer.project.weight.clone()], layer.project.inputs),
            &mut gradient,
            true,
        );
        for buffer in [to_wide, middle, to_context, to_projected] {
            buffers.give(buffer);
        }
        tape.give(buffers);
        gradient
    }
}

impl LayerTape {
    /// Gives its memory back.
    fn give(self, buffers: &Buffers) {
        let Self { input, projected, context, attention_normalised, wide, output_normalised, .. } = self;
        for buffer in [input, projected, context, attention_normalised, wide, output_normalised] {
            buffers.give(buffer);
        }
    }
}

impl Tape {
    /// Gives its memory back.
    fn give(self, buffers: &Buffers) {
        buffers.give(self.normalised);
        self.layers.into_iter().for_each(|layer| layer.give(buffers));
    }
}

fn linear_at(
    next: &mut impl FnMut(&[usize]) -> Result<Range<usize>>,
    outputs: usize,
    inputs: usize,
) -> Result<LinearAt> {
    Ok(LinearAt { weight: next(&[outputs, inputs])?, bias: next(&[outputs])?, inputs })
}

fn norm_at(next: &mut impl FnMut(&[usize]) -> Result<Range<usize>>, hidden: usize) -> Result<NormAt> {
    Ok(NormAt { scale: next(&[hidden])?, shift: next(&[hidden])? })
}

/// The parameters, and the gradient of all of them but the word table.
struct Sums<'a> {
    parameters: &'a [f32],
    sums: &'a mut [f32],
    words: Range<usize>,
}

impl Sums<'_> {
    /// The part that belongs to some parameters.
    fn at(&mut self, range: Range<usize>) -> &mut [f32] {
        let shift = if range.start >= self.words.end { self.words.len() } else { 0 };
        &mut self.sums[range.start - shift..range.end - shift]
    }
}

/// `input * weightsᵀ + bias`.
fn linear(buffers: &Buffers, parameters: &[f32], at: &LinearAt, input: &[f32]) -> Vec<f32> {
    let outputs = at.bias.len();
    let mut out = buffers.take(input.len() / at.inputs * outputs, BLOCK * outputs);
    let weights = Matrix::new(&parameters[at.weight.clone()], at.inputs);
    product(Matrix::new(input, at.inputs), weights.t(), &mut out, false);
    add_to_rows(&mut out, &parameters[at.bias.clone()]);
    out
}

/// The gradient of a linear layer's input.
fn back_through_weights(buffers: &Buffers, parameters: &[f32], at: &LinearAt, gradient: &[f32]) -> Vec<f32> {
    let outputs = at.bias.len();
    let mut out = buffers.take(gradient.len() / outputs * at.inputs, BLOCK * at.inputs);
    let weights = Matrix::new(&parameters[at.weight.clone()], at.inputs);
    product(Matrix::new(gradient, outputs), weights, &mut out, false);
    out
}

/// Adds the gradients of a linear layer's weights and bias.
fn collect(at: &LinearAt, gradient: &[f32], input: &[f32], to: &mut Sums<'_>) {
    let outputs = at.bias.len();
    product(
        Matrix::new(gradient, outputs).t(),
        Matrix::new(input, at.inputs),
        to.at(at.weight.clone()),
        true,
    );
    sum_rows(gradient, to.at(at.bias.clone()));
}

fn back_through_norm(at: &NormAt, gradient: &mut [f32], tape: (&[f32], &[f32]), to: &mut Sums<'_>) {
    let scale = &to.parameters[at.scale.clone()];
    let (mut to_scale, mut to_shift) = (zeros(scale.len()), zeros(scale.len()));
    norm_backward(gradient, tape, scale, (&mut to_scale, &mut to_shift));
    add(to.at(at.scale.clone()), &to_scale);
    add(to.at(at.shift.clone()), &to_shift);
}
