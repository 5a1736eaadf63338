//! The encoder itself: embeddings, then layers of attention and feed-forward, over a ragged batch.
//!
//! BERT and MPNet are one network here. They differ in the names of their tensors, in where positions
//! start, in BERT's token types (always 0 for a single text, so added to the positions once and for all)
//! and in MPNet's bias by distance, which all layers share.

use super::folder::{Architecture, Config};
use super::weights::{Table, Tensor, Tensors};
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::kernel::{
    Attention, AttentionScratch, DistanceBias, InstructionSet, LayerNorm, Linear, LinearScratch, Precision,
    Then,
};
use crate::team::Team;

/// A loaded network.
#[derive(Debug)]
pub(crate) struct Network {
    hidden: usize,
    words: Table,
    /// `positions x hidden`, token type added; row 0 belongs to a text's first token.
    positions: Vec<f32>,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values side by side.
    project: Linear,
    attention: Attention,
    mix: Linear,
    attention_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    output_norm: LayerNorm,
}

/// Memory of one thread's batches, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    projected: Vec<f32>,
    mixed: Vec<f32>,
    output: Vec<f32>,
    wide: Vec<f32>,
    linear: LinearScratch,
    attention: AttentionScratch,
}

/// What loading found, beside the network.
pub(crate) struct Loaded {
    pub(crate) network: Network,
    pub(crate) fingerprint: String,
    pub(crate) parameters: usize,
    pub(crate) stored_as: &'static str,
}

/// Names of the tensors of an architecture, in `config.json`'s terms.
struct Names {
    embeddings: [&'static str; 3],
    attention: [&'static str; 4],
    attention_norm: &'static str,
}

const BERT: Names = Names {
    embeddings: [
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
    ],
    attention: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ],
    attention_norm: "attention.output.LayerNorm",
};

const MPNET: Names = Names {
    embeddings: ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", ""],
    attention: ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
    attention_norm: "attention.LayerNorm",
};

/// Reads tensors, counting each into the fingerprint.
struct Reader<'a> {
    tensors: &'a Tensors<'a>,
    hasher: blake3::Hasher,
    parameters: usize,
    stored_as: &'static str,
}

impl<'a> Reader<'a> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
        let tensor = self.tensors.get(name, shape)?;
        tensor.fingerprint(&mut self.hasher);
        self.parameters += tensor.len();
        self.stored_as = tensor.type_name();
        Ok(tensor)
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.tensor(name, shape)?.to_f32()
    }

    fn norm(&mut self, name: &str, config: &Config) -> Result<LayerNorm> {
        Ok(LayerNorm {
            scale: self.values(&format!("{name}.weight"), &[config.hidden])?,
            shift: self.values(&format!("{name}.bias"), &[config.hidden])?,
            epsilon: config.epsilon,
        })
    }

    /// One or several linear layers, one below the other.
    fn stacked(&mut self, names: &[String], outputs: usize, inputs: usize) -> Result<Stacked<'a>> {
        let mut stacked = Stacked { weights: Vec::new(), bias: Vec::new() };
        for name in names {
            stacked.weights.push(self.tensor(&format!("{name}.weight"), &[outputs, inputs])?);
            stacked.bias.extend(self.values(&format!("{name}.bias"), &[outputs])?);
        }
        Ok(stacked)
    }
}

/// Linear layers that become one, not read yet.
struct Stacked<'a> {
    weights: Vec<Tensor<'a>>,
    bias: Vec<f32>,
}

/// A layer before its weights are read and packed.
struct RawLayer<'a> {
    linear: [Stacked<'a>; 4],
    norms: [LayerNorm; 2],
}

impl Network {
    /// Reads and packs all weights; every number is checked to be finite.
    pub(crate) fn load(
        config: &Config,
        tensors: &Tensors<'_>,
        precision: Precision,
        compute: &Compute,
    ) -> Result<Loaded> {
        let names = if config.architecture == Architecture::Bert { BERT } else { MPNET };
        let hidden = config.hidden;
        let mut reader = Reader { tensors, hasher: blake3::Hasher::new(), parameters: 0, stored_as: "f32" };
        reader.hasher.update(
            format!(
                "{} heads {} epsilon {:e} first position {}\n",
                config.architecture.name(),
                config.heads,
                config.epsilon,
                config.first_position
            )
            .as_bytes(),
        );
        let words = reader.tensor(names.embeddings[0], &[config.vocabulary, hidden])?.to_table()?;
        let mut positions = reader.values(names.embeddings[1], &[config.positions, hidden])?;
        positions.drain(..config.first_position * hidden);
        if config.architecture == Architecture::Bert {
            // A single text is all of type 0; the table has as many rows as the model has types.
            let types =
                (1..=16).find(|rows| tensors.get(names.embeddings[2], &[*rows, hidden]).is_ok()).unwrap_or(2);
            let types = reader.values(names.embeddings[2], &[types, hidden])?;
            for row in positions.chunks_exact_mut(hidden) {
                row.iter_mut().zip(&types).for_each(|(position, kind)| *position += kind);
            }
        }
        let embedding_norm = reader.norm("embeddings.LayerNorm", config)?;
        let bias = match config.architecture {
            Architecture::Bert => None,
            Architecture::MpNet => {
                let name = "encoder.relative_attention_bias.weight";
                let table = reader.values(name, &[config.buckets, config.heads])?;
                Some(distance_bias(&table, config))
            }
        };
        let mut raw = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            let at = |name: &str| format!("encoder.layer.{index}.{name}");
            let [query, key, value, output] = names.attention.map(at);
            raw.push(RawLayer {
                linear: [
                    reader.stacked(&[query, key, value], hidden, hidden)?,
                    reader.stacked(&[output], hidden, hidden)?,
                    reader.stacked(&[at("intermediate.dense")], config.intermediate, hidden)?,
                    reader.stacked(&[at("output.dense")], hidden, config.intermediate)?,
                ],
                norms: [
                    reader.norm(&at(names.attention_norm), config)?,
                    reader.norm(&at("output.LayerNorm"), config)?,
                ],
            });
        }
        let attention = Attention { heads: config.heads, head_width: hidden / config.heads, bias };
        let layers = compute.map(raw, |weights: &mut Vec<f32>, layer| {
            let mut pack = |stacked: Stacked<'_>| {
                weights.clear();
                for tensor in stacked.weights {
                    tensor.append_to(weights)?;
                }
                Linear::new(compute.instruction_set(), precision, weights, stacked.bias).map_err(|source| {
                    Error::Io { action: "allocate memory for", path: "packed weights".into(), source }
                })
            };
            let [project, mix, widen, narrow] = layer.linear;
            let [attention_norm, output_norm] = layer.norms;
            Ok(Layer {
                project: pack(project)?,
                attention: attention.clone(),
                mix: pack(mix)?,
                attention_norm,
                widen: pack(widen)?,
                narrow: pack(narrow)?,
                output_norm,
            })
        })?;
        Ok(Loaded {
            fingerprint: reader.hasher.finalize().to_hex()[..32].to_string(),
            parameters: reader.parameters,
            stored_as: reader.stored_as,
            network: Self { hidden, words, positions, embedding_norm, layers },
        })
    }

    /// Width of a token state.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Token states of a ragged batch, one row a token, into `states`.
    ///
    /// Ids must be in the vocabulary and no text longer than the position table. The threads of `team` share each product.
    pub(crate) fn forward(
        &self,
        (set, team): (InstructionSet, &Team),
        batch: &[&[u32]],
        states: &mut [f32],
        work: &mut Workspace,
    ) {
        let mut offsets = vec![0];
        let mut word = Vec::with_capacity(self.hidden);
        for ids in batch {
            let start = offsets[offsets.len() - 1];
            offsets.push(start + ids.len());
            let rows = states[start * self.hidden..].chunks_exact_mut(self.hidden);
            for ((id, row), position) in ids.iter().zip(rows).zip(self.positions.chunks_exact(self.hidden)) {
                self.words.read(*id as usize, &mut word);
                for ((value, word), position) in row.iter_mut().zip(&word).zip(position) {
                    *value = word + position;
                }
            }
        }
        assert_eq!(states.len(), offsets[offsets.len() - 1] * self.hidden);
        self.embedding_norm.apply(set, states, &[]);
        for layer in &self.layers {
            let linear = &mut work.linear;
            layer.project.apply(team, states, (&mut work.projected, Then::Nothing), linear);
            layer.attention.apply(set, &work.projected, &offsets, (&mut work.mixed, &mut work.attention));
            layer.mix.apply(team, &work.mixed, (&mut work.output, Then::Nothing), linear);
            layer.attention_norm.apply(set, states, &work.output);
            layer.widen.apply(team, states, (&mut work.wide, Then::Gelu), linear);
            layer.narrow.apply(team, &work.wide, (&mut work.output, Then::Nothing), linear);
            layer.output_norm.apply(set, states, &work.output);
        }
    }
}

/// The table by head and distance, from the table by bucket and head.
fn distance_bias(table: &[f32], config: &Config) -> DistanceBias {
    let limit = config.positions - config.first_position;
    let mut values = Vec::with_capacity(config.heads * (2 * limit + 1) + crate::kernel::LANES);
    for head in 0..config.heads {
        for place in 0..=2 * limit {
            let bucket = distance_bucket(place as i64 - limit as i64, config.buckets);
            values.push(table[bucket * config.heads + head]);
        }
    }
    values.extend([0.0; crate::kernel::LANES]);
    DistanceBias { limit, table: values }
}

/// Bucket of a distance (key position - query position), as T5 and MPNet define it: half of the buckets
/// for each sign; the first half of those for one distance each, the others logarithmic up to 128.
pub fn distance_bucket(distance: i64, buckets: usize) -> usize {
    const FARTHEST: f32 = 128.0;
    let half = buckets / 2;
    let exact = half / 2;
    let side = if distance > 0 { half } else { 0 };
    let magnitude = distance.unsigned_abs() as usize;
    if magnitude < exact {
        return side + magnitude;
    }
    let ratio = (magnitude as f32 / exact as f32).ln() / (FARTHEST / exact as f32).ln();
    let large = exact + (ratio * (half - exact) as f32) as usize;
    side + large.min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::distance_bucket;

    #[test]
    fn buckets_change_where_the_reference_changes() {
        // Distances at which transformers' MPNet enters a bucket, for 32 buckets.
        let firsts = [0usize, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for distance in 0..512usize {
            let expected = firsts.iter().rposition(|first| *first <= distance).unwrap();
            assert_eq!(distance_bucket(-(distance as i64), 32), expected, "-{distance}");
            if distance > 0 {
                assert_eq!(distance_bucket(distance as i64, 32), 16 + expected, "{distance}");
            }
        }
    }
}
