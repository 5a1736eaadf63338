//! The same passes on a device that burn drives: a GPU by kernels that are compiled at run time, or burn's own processor backend,
//! on which the tests hold these passes to the oracle.
//!
//! Weights, token states and gradients come from the host and go back to it: sampling, loss, optimiser and checkpoints are those
//! of the processor, so that a training can go on elsewhere. What crosses is the weights, their gradient and the states: for the base encoder
//! and the paper's batch about 1 GB a step. Texts are padded here, in chunks of texts of about one length.

use crate::error::{Error, Result};
use crate::interaction::{Form, Pass, Queries, Targets, Vectors};
use crate::network::{Batch, LayerAt, LinearAt, Network, NormAt};
use burn_autodiff::Autodiff;
use burn_flex::Flex;
use burn_tensor::activation::{gelu, softmax};
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::{DType, Int, Tensor, TensorData};
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Places of a chunk of texts, padding included.
const CHUNK: usize = 16_384;
/// Products of a block of queries and all targets.
const PRODUCTS: usize = 1 << 26;
/// Added to the logit of what is no token.
const NOTHING: f32 = -1e30;

/// A device, and how it multiplies.
#[derive(Clone, Debug)]
pub struct Device(Arc<dyn Passes>);

/// What the way back needs of a batch: a backend's [`KeptBy`].
pub(crate) struct Kept(Box<dyn Any + Send>);

impl Device {
    /// A device by name: `burn-cpu`, burn's own processor backend, or, in a build with the feature `cuda`, `cuda` and `cuda:1`.
    ///
    /// # Errors
    /// When this build has no such device.
    pub fn named(name: &str, mixed: bool) -> std::result::Result<Self, String> {
        let passes: Option<Arc<dyn Passes>> = match name.split_once(':').unwrap_or((name, "0")) {
            ("burn-cpu", "0") => {
                Some(Arc::new(Engine::<Autodiff<Flex>> { device: Default::default(), mixed }))
            }
            #[cfg(feature = "cuda")]
            ("cuda", index) => index.parse().ok().map(|index| {
                let device = burn_cuda::CudaDevice::new(index);
                Arc::new(Engine::<Autodiff<burn_cuda::Cuda>> { device, mixed }) as Arc<dyn Passes>
            }),
            _ => None,
        };
        let problem = || {
            format!(
                "`{name}` is no device of this build; `burn-cpu` is one, and with the feature `cuda`, `cuda`"
            )
        };
        Ok(Self(passes.ok_or_else(problem)?))
    }

    pub(crate) fn passes(&self) -> &dyn Passes {
        &*self.0
    }
}

/// The passes, whatever burn's backend is.
pub(crate) trait Passes: Debug + Send + Sync {
    /// Token states of a batch; with `keep`, what the way back needs.
    fn forward(
        &self,
        network: &Network,
        parameters: &[f32],
        batch: &Batch,
        keep: bool,
    ) -> Result<(Vec<f32>, Option<Kept>)>;

    /// The gradient of all parameters, from that of the token states.
    fn backward(
        &self,
        network: &Network,
        batch: (&[f32], &Batch),
        kept: Option<Kept>,
        gradient: &[f32],
    ) -> Result<Vec<f32>>;

    /// Scores of all pairs, `queries x targets`.
    fn scores(&self, passes: &[Pass], queries: &Queries, targets: &Targets) -> Result<Vec<f32>>;

    /// Gradients of the queries' and the targets' vectors, text by text, from those of the scores.
    fn scores_back(
        &self,
        passes: &[Pass],
        queries: &Queries,
        targets: &Targets,
        slopes: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)>;
}

/// The passes on one of burn's backends.
#[derive(Debug)]
struct Engine<B: AutodiffBackend> {
    device: B::Device,
    /// Whether factors of matrix products are rounded to bfloat16; sums stay in 32 bits.
    mixed: bool,
}

/// A chunk's texts and their tracked states, and the weights that they came from.
struct KeptBy<B: AutodiffBackend> {
    weights: Weights<B>,
    chunks: Vec<(Chunk, Tensor<B, 2>)>,
}

/// A gradient's sum; none before the first.
type Sum<B> = Option<Tensor<<B as AutodiffBackend>::InnerBackend, 1>>;

impl<B: AutodiffBackend> Passes for Engine<B> {
    fn forward(
        &self,
        network: &Network,
        parameters: &[f32],
        batch: &Batch,
        keep: bool,
    ) -> Result<(Vec<f32>, Option<Kept>)> {
        let hidden = network.hidden();
        let weights = Weights::new(self, network, parameters, keep);
        let mut states = vec![0.0; batch.ids.len() * hidden];
        let mut chunks = Vec::new();
        for chunk in Chunk::all(batch) {
            let tensor = self.encode(network, &weights, &chunk, batch);
            chunk.write(batch, &download(tensor.clone().inner())?, &mut states);
            if keep {
                chunks.push((chunk, tensor));
            }
        }
        let kept = || Kept(Box::new(KeptBy { weights, chunks }));
        Ok((states, keep.then(kept)))
    }

    fn backward(
        &self,
        network: &Network,
        (parameters, batch): (&[f32], &Batch),
        kept: Option<Kept>,
        gradient: &[f32],
    ) -> Result<Vec<f32>> {
        let hidden = network.hidden();
        let (weights, kept) = match kept.and_then(|kept| kept.0.downcast::<KeptBy<B>>().ok()) {
            Some(kept) => (kept.weights, Some(kept.chunks)),
            None => (Weights::new(self, network, parameters, true), None),
        };
        let mut sums: Vec<Sum<B>> = vec![None; weights.leaves.len()];
        let mut back = |chunk: &Chunk, states: Tensor<B, 2>| {
            let rows = chunk.read(batch, gradient, hidden);
            let count = rows.len() / hidden;
            let mut gradients = (states * self.upload(rows, [count, hidden])).sum().backward();
            for (sum, (_, leaf)) in sums.iter_mut().zip(&weights.leaves) {
                add_to(sum, leaf, &mut gradients);
            }
        };
        match kept {
            Some(chunks) => chunks.into_iter().for_each(|(chunk, states)| back(&chunk, states)),
            None => Chunk::all(batch)
                .into_iter()
                .for_each(|chunk| back(&chunk, self.encode(network, &weights, &chunk, batch))),
        }
        let mut total = vec![0.0; parameters.len()];
        for (sum, (range, _)) in sums.into_iter().zip(&weights.leaves) {
            if let Some(sum) = sum {
                total[range.clone()].copy_from_slice(&download(sum)?);
            }
        }
        Ok(total)
    }

    fn scores(&self, passes: &[Pass], queries: &Queries, targets: &Targets) -> Result<Vec<f32>> {
        let others = Side::new(self, targets.vectors(), 0..targets.len(), false);
        let mut scores = Vec::with_capacity(queries.len() * targets.len());
        for texts in blocks(queries.vectors(), &others) {
            let own = Side::new(self, queries.vectors(), texts, false);
            scores.extend(download(self.all_pairs(passes, &own, &others).reshape([-1]))?);
        }
        Ok(scores)
    }

    fn scores_back(
        &self,
        passes: &[Pass],
        queries: &Queries,
        targets: &Targets,
        slopes: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let others = Side::new(self, targets.vectors(), 0..targets.len(), true);
        let mut to_queries = Vec::with_capacity(queries.vectors().values.len());
        let mut to_targets = None;
        for texts in blocks(queries.vectors(), &others) {
            let own = Side::new(self, queries.vectors(), texts.clone(), true);
            let scores = self.all_pairs(passes, &own, &others);
            let slopes = slopes[texts.start * targets.len()..texts.end * targets.len()].to_vec();
            let slopes = self.upload(slopes, [texts.len(), targets.len()]);
            let mut gradients = (scores * slopes).sum().backward();
            let mut to_own = None;
            add_to(&mut to_own, &own.leaf, &mut gradients);
            to_queries.extend(own.unpadded(to_own, queries.vectors(), &texts)?);
            add_to(&mut to_targets, &others.leaf, &mut gradients);
        }
        let all = 0..targets.len();
        Ok((to_queries, others.unpadded(to_targets, targets.vectors(), &all)?))
    }
}

impl<B: AutodiffBackend> Engine<B> {
    fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<B, D> {
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn integers(&self, values: Vec<i32>) -> Tensor<B, 1, Int> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &self.device)
    }

    /// A matrix product, of rounded factors where the device is told so.
    fn product<const D: usize>(&self, left: Tensor<B, D>, right: Tensor<B, D>) -> Tensor<B, D> {
        if self.mixed {
            return left.cast(DType::BF16).matmul(right.cast(DType::BF16)).cast(DType::F32);
        }
        left.matmul(right)
    }

    /// States of a chunk's tokens, padding left out.
    fn encode(&self, network: &Network, weights: &Weights<B>, chunk: &Chunk, batch: &Batch) -> Tensor<B, 2> {
        let config = &network.config;
        let (texts, length, hidden) = (chunk.texts.len(), chunk.length, config.hidden);
        let (ids, bias) = chunk.padded(batch);
        let ids = self.integers(ids).reshape([texts, length]);
        let bias = self.upload(bias, [texts, 1, 1, length]);
        let first = config.first_position;
        let positions = weights.positions.clone().narrow(0, first, length).unsqueeze::<3>();
        let mut states = burn_tensor::module::embedding(weights.words.clone(), ids) + positions;
        if let Some(kind) = &weights.kind {
            states = states + kind.clone().reshape([1, 1, hidden]);
        }
        states = normalise(states, &weights.norm, config.epsilon);
        let bias = match &weights.distances {
            Some(table) => {
                let buckets =
                    (0..length * length).map(|place| network.bucket(place / length, place % length) as i32);
                let rows = table.clone().select(0, self.integers(buckets.collect()));
                let by_head = rows.reshape([length, length, config.heads]).permute([2, 0, 1]);
                bias + by_head.unsqueeze::<4>()
            }
            None => bias,
        };
        for layer in &weights.layers {
            states = self.layer(network, layer, states, bias.clone());
        }
        states.reshape([texts * length, hidden]).select(0, self.integers(chunk.own_rows(batch)))
    }

    fn layer(
        &self,
        network: &Network,
        layer: &LayerWeights<B>,
        input: Tensor<B, 3>,
        bias: Tensor<B, 4>,
    ) -> Tensor<B, 3> {
        let config = &network.config;
        let ([texts, length, hidden], heads) = (input.dims(), config.heads);
        let projected = self.linear(&layer.project, input.clone());
        let part = |part: usize| {
            let own = projected.clone().narrow(2, part * hidden, hidden);
            own.reshape([texts, length, heads, hidden / heads]).swap_dims(1, 2)
        };
        let scale = 1.0 / ((hidden / heads) as f32).sqrt();
        let logits = self.product(part(0), part(1).swap_dims(2, 3)) * scale + bias;
        let context =
            self.product(softmax(logits, 3), part(2)).swap_dims(1, 2).reshape([texts, length, hidden]);
        let middle = self.linear(&layer.mix, context) + input;
        let middle = normalise(middle, &layer.attention_norm, config.epsilon);
        let wide = gelu(self.linear(&layer.widen, middle.clone()));
        let output = self.linear(&layer.narrow, wide) + middle;
        normalise(output, &layer.output_norm, config.epsilon)
    }

    fn linear(&self, (weight, bias): &(Tensor<B, 2>, Tensor<B, 1>), input: Tensor<B, 3>) -> Tensor<B, 3> {
        let [texts, length, width] = input.dims();
        let rows = self.product(input.reshape([texts * length, width]), weight.clone().transpose());
        let outputs = bias.dims()[0];
        (rows + bias.clone().unsqueeze()).reshape([texts, length, outputs])
    }

    /// Scores of a block of queries and all targets.
    fn all_pairs(&self, passes: &[Pass], queries: &Side<B>, targets: &Side<B>) -> Tensor<B, 2> {
        let parts = passes.iter().map(|pass| self.pairs(pass, queries, targets) * pass.part);
        parts.reduce(|sum, part| sum + part).unwrap_or_else(|| {
            let (rows, columns) = (queries.counts.dims()[0], targets.counts.dims()[0]);
            Tensor::zeros([rows, columns], &queries.counts.device())
        })
    }

    /// What a pass adds to them.
    fn pairs(&self, pass: &Pass, queries: &Side<B>, targets: &Side<B>) -> Tensor<B, 2> {
        let ([rows, a, width], [columns, b, _]) = (queries.vectors.dims(), targets.vectors.dims());
        let left = queries.vectors.clone().reshape([rows * a, width]);
        let right = targets.vectors.clone().reshape([columns * b, width]).transpose();
        let dots = self.product(left, right).reshape([rows, a, columns, b]);
        let own = queries.inverse.clone().reshape([rows, a, 1, 1]);
        let other = targets.inverse.clone().reshape([1, 1, columns, b]);
        let cosines = dots.clone() * own.clone() * other.clone();
        let mask = |side: &Side<B>, shape: [usize; 4]| side.mask.clone().reshape(shape);
        let (query_mask, target_mask) = (mask(queries, [rows, a, 1, 1]), mask(targets, [1, 1, columns, b]));
        // 0 for a vector, and far below everything where there is none.
        let bias = |mask: Tensor<B, 4>| (mask - 1.0) * -NOTHING;
        let mut logits = dots / pass.temperature;
        if pass.unit_query {
            logits = logits * own;
        }
        if pass.unit_target {
            logits = logits * other;
        }
        let parts = match pass.form {
            Form::OverTarget => {
                let weights = softmax(logits + bias(target_mask), 3);
                (weights * cosines).sum_dim(3) * query_mask
            }
            Form::OverQuery => {
                let weights = softmax(logits + bias(query_mask), 1);
                (weights * cosines).sum_dim(1) * target_mask
            }
            Form::Maximum => (cosines + bias(target_mask)).max_dim(3) * query_mask,
        };
        // A target without a vector has no score.
        let present = targets.mask.clone().max_dim(1).reshape([1, columns]);
        let sums = parts.sum_dim(3).sum_dim(1).reshape([rows, columns]) * present;
        if !pass.mean {
            return sums;
        }
        let counts = match pass.form {
            Form::OverQuery => targets.counts.clone().reshape([1, columns]),
            _ => queries.counts.clone().reshape([rows, 1]),
        };
        sums / counts
    }
}

/// Numbers of a tensor, in order.
fn download<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    let failed = |problem: String| Error::Device { problem };
    let data = tensor.try_into_data().map_err(|error| failed(format!("{error:?}")))?;
    data.into_vec::<f32>().map_err(|error| failed(format!("{error:?}")))
}

fn add_to<B: AutodiffBackend>(sum: &mut Sum<B>, leaf: &Tensor<B, 1>, gradients: &mut B::Gradients) {
    if let Some(gradient) = leaf.grad_remove(gradients) {
        *sum = Some(match sum.take() {
            Some(sum) => sum + gradient,
            None => gradient,
        });
    }
}

fn normalise<B: Backend>(states: Tensor<B, 3>, (scale, shift): &Pair<B>, epsilon: f32) -> Tensor<B, 3> {
    let centred = states.clone() - states.mean_dim(2);
    let spread = (centred.clone() * centred.clone()).mean_dim(2);
    centred / (spread + epsilon).sqrt() * scale.clone().unsqueeze() + shift.clone().unsqueeze()
}

/// A scale and a shift.
type Pair<B> = (Tensor<B, 1>, Tensor<B, 1>);

struct LayerWeights<B: Backend> {
    project: (Tensor<B, 2>, Tensor<B, 1>),
    mix: (Tensor<B, 2>, Tensor<B, 1>),
    attention_norm: Pair<B>,
    widen: (Tensor<B, 2>, Tensor<B, 1>),
    narrow: (Tensor<B, 2>, Tensor<B, 1>),
    output_norm: Pair<B>,
}

/// The parameters on the device, and the flat leaves that they are views of.
struct Weights<B: Backend> {
    leaves: Vec<(Range<usize>, Tensor<B, 1>)>,
    words: Tensor<B, 2>,
    positions: Tensor<B, 2>,
    kind: Option<Tensor<B, 1>>,
    norm: Pair<B>,
    distances: Option<Tensor<B, 2>>,
    layers: Vec<LayerWeights<B>>,
}

/// Uploads parameters, and lists them as leaves.
struct Upload<'a, B: AutodiffBackend> {
    device: &'a Engine<B>,
    parameters: &'a [f32],
    tracked: bool,
    leaves: Vec<(Range<usize>, Tensor<B, 1>)>,
}

impl<B: AutodiffBackend> Upload<'_, B> {
    fn vector(&mut self, range: &Range<usize>) -> Tensor<B, 1> {
        let tensor = self.device.upload(self.parameters[range.clone()].to_vec(), [range.len()]);
        let tensor = if self.tracked { tensor.require_grad() } else { tensor };
        self.leaves.push((range.clone(), tensor.clone()));
        tensor
    }

    fn matrix(&mut self, range: &Range<usize>, columns: usize) -> Tensor<B, 2> {
        self.vector(range).reshape([range.len() / columns, columns])
    }

    fn linear(&mut self, at: &LinearAt) -> (Tensor<B, 2>, Tensor<B, 1>) {
        (self.matrix(&at.weight, at.inputs), self.vector(&at.bias))
    }

    fn norm(&mut self, at: &NormAt) -> Pair<B> {
        (self.vector(&at.scale), self.vector(&at.shift))
    }

    fn layer(&mut self, at: &LayerAt) -> LayerWeights<B> {
        LayerWeights {
            project: self.linear(&at.project),
            mix: self.linear(&at.mix),
            attention_norm: self.norm(&at.attention_norm),
            widen: self.linear(&at.widen),
            narrow: self.linear(&at.narrow),
            output_norm: self.norm(&at.output_norm),
        }
    }
}

impl<B: AutodiffBackend> Weights<B> {
    fn new(device: &Engine<B>, network: &Network, parameters: &[f32], tracked: bool) -> Self {
        let (hidden, heads) = (network.hidden(), network.config.heads);
        let mut upload = Upload { device, parameters, tracked, leaves: Vec::new() };
        let words = upload.matrix(&network.words, hidden);
        let positions = upload.matrix(&network.positions, hidden);
        let kind = network.kind.as_ref().map(|range| upload.vector(range));
        let norm = upload.norm(&network.embedding_norm);
        let distances = network.distances.as_ref().map(|range| upload.matrix(range, heads));
        let layers = network.layers.iter().map(|layer| upload.layer(layer)).collect();
        Self { leaves: upload.leaves, words, positions, kind, norm, distances, layers }
    }
}

/// Texts that are encoded at once.
struct Chunk {
    texts: Vec<usize>,
    /// Tokens of the longest.
    length: usize,
}

impl Chunk {
    /// A batch's texts, the shortest first.
    fn all(batch: &Batch) -> Vec<Self> {
        let mut order: Vec<usize> = (0..batch.texts()).collect();
        order.sort_by_key(|text| (batch.tokens(*text).len(), *text));
        let mut chunks: Vec<Self> = Vec::new();
        for text in order {
            let length = batch.tokens(text).len();
            match chunks.last_mut() {
                Some(chunk) if (chunk.texts.len() + 1) * length <= CHUNK => {
                    chunk.texts.push(text);
                    chunk.length = length;
                }
                _ => chunks.push(Self { texts: vec![text], length }),
            }
        }
        chunks
    }

    /// Ids, and the bias of each place, `texts x length`.
    fn padded(&self, batch: &Batch) -> (Vec<i32>, Vec<f32>) {
        let count = self.texts.len() * self.length;
        let (mut ids, mut bias) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for text in &self.texts {
            let own = &batch.ids[batch.tokens(*text)];
            let missing = self.length - own.len();
            ids.extend(own.iter().map(|id| *id as i32).chain(std::iter::repeat_n(0, missing)));
            bias.extend(std::iter::repeat_n(0.0, own.len()).chain(std::iter::repeat_n(NOTHING, missing)));
        }
        (ids, bias)
    }

    /// Rows of tokens among `texts x length`.
    fn own_rows(&self, batch: &Batch) -> Vec<i32> {
        let of = |(place, text): (usize, &usize)| {
            let first = (place * self.length) as i32;
            first..first + batch.tokens(*text).len() as i32
        };
        self.texts.iter().enumerate().flat_map(of).collect()
    }

    /// Puts the chunk's states in their places of the batch.
    fn write(&self, batch: &Batch, own: &[f32], states: &mut [f32]) {
        let width = states.len() / batch.ids.len();
        let mut start = 0;
        for text in &self.texts {
            let tokens = batch.tokens(*text);
            let end = start + tokens.len() * width;
            states[tokens.start * width..tokens.end * width].copy_from_slice(&own[start..end]);
            start = end;
        }
    }

    /// The chunk's rows of what a batch has for each token.
    fn read(&self, batch: &Batch, rows: &[f32], width: usize) -> Vec<f32> {
        let of = |text: &usize| {
            let tokens = batch.tokens(*text);
            rows[tokens.start * width..tokens.end * width].iter().copied()
        };
        self.texts.iter().flat_map(of).collect()
    }
}

/// Texts' counted vectors, padded.
struct Side<B: Backend> {
    leaf: Tensor<B, 1>,
    /// `texts x length x width`
    vectors: Tensor<B, 3>,
    /// 1 for a vector, 0 where there is none; `texts x length`.
    mask: Tensor<B, 2>,
    /// Reciprocal lengths.
    inverse: Tensor<B, 2>,
    counts: Tensor<B, 1>,
    length: usize,
}

impl<B: AutodiffBackend> Side<B> {
    fn new(device: &Engine<B>, vectors: &Vectors, texts: Range<usize>, tracked: bool) -> Self {
        let (count, width) = (texts.len(), vectors.width);
        let length = texts.clone().map(|text| vectors.length(text)).max().unwrap_or(0).max(1);
        let (mut values, mut mask) = (vec![0.0; count * length * width], vec![0.0; count * length]);
        let mut counts = Vec::with_capacity(count);
        for (place, text) in texts.enumerate() {
            let own = vectors.offsets[text] * width..vectors.offsets[text + 1] * width;
            let start = place * length * width;
            values[start..start + own.len()].copy_from_slice(&vectors.values[own]);
            mask[place * length..place * length + vectors.length(text)].fill(1.0);
            counts.push(vectors.length(text).max(1) as f32);
        }
        let leaf = device.upload(values, [count * length * width]);
        let leaf = if tracked { leaf.require_grad() } else { leaf };
        let vectors = leaf.clone().reshape([count, length, width]);
        let mask = device.upload(mask, [count, length]);
        let squares = (vectors.clone() * vectors.clone()).sum_dim(2).reshape([count, length]);
        // What is no vector has length 1, so that nothing is divided by 0.
        let inverse = (squares + (mask.clone() - 1.0) * -1.0).sqrt().recip();
        Self { leaf, vectors, mask, inverse, counts: device.upload(counts, [count]), length }
    }

    /// A gradient of the padded vectors as one of the texts' own.
    fn unpadded(&self, gradient: Sum<B>, vectors: &Vectors, texts: &Range<usize>) -> Result<Vec<f32>> {
        let width = vectors.width;
        let own = vectors.offsets[texts.start] * width..vectors.offsets[texts.end] * width;
        let Some(gradient) = gradient else { return Ok(vec![0.0; own.len()]) };
        let padded = download(gradient)?;
        let of = |(place, text): (usize, usize)| {
            let start = place * self.length * width;
            padded[start..start + vectors.length(text) * width].iter().copied()
        };
        Ok(texts.clone().enumerate().flat_map(of).collect())
    }
}

/// Blocks of queries whose products with all targets are not too many.
fn blocks<B: Backend>(queries: &Vectors, targets: &Side<B>) -> Vec<Range<usize>> {
    let count = queries.offsets.len() - 1;
    let length = (0..count).map(|text| queries.length(text)).max().unwrap_or(0).max(1);
    let [columns, other, _] = targets.vectors.dims();
    let each = (PRODUCTS / (length * columns * other).max(1)).clamp(1, count.max(1));
    (0..count).step_by(each).map(|start| start..(start + each).min(count)).collect()
}
