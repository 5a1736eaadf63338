//! Scorers: how the token states of a query and a target become one number.

use crate::error::{Error, Result};
use crate::kernel::{Aggregation, Pass};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A scorer with its options.
///
/// With token states `q_i` of the query and `y_j` of the target, not normalised:
///
/// | scorer | score |
/// |---|---|
/// | [`SoftLateInteraction`](Scorer::SoftLateInteraction) | `sum_i sum_j A_ij cos(q_i, y_j)`, `A = softmax over j of logit_ij / temperature` |
/// | [`MaxSim`](Scorer::MaxSim) | `sum_i max_j cos(q_i, y_j)` |
/// | [`SoftPooled`](Scorer::SoftPooled) | `sum_i a_i cos(q_i, y)`, `a = softmax over i of logit_i / temperature`, `y` the pooled target |
/// | [`Cosine`](Scorer::Cosine) | `cos(q, y)` of the pooled texts |
///
/// Source: "Unified Work Embeddings", arXiv 2511.07969; MaxSim is ColBERT's, the pooled form ConTeXT-match's.
/// A text without a counted token scores 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "scorer", rename_all = "kebab-case")]
pub enum Scorer {
    /// Token-level soft late interaction, the method's own.
    SoftLateInteraction {
        /// Divides the logits; near 0 the softmax becomes a maximum.
        temperature: f32,
        /// What the softmax is taken of.
        logits: Logits,
        /// Over whose tokens the softmax runs.
        axis: Axis,
        /// Whether the sum is divided by the number of tokens on the other side.
        reduction: Reduction,
    },
    /// Largest cosine for each query token.
    MaxSim {
        /// Whether the sum is divided by the number of query tokens.
        reduction: Reduction,
    },
    /// Soft late interaction with the target pooled into one vector.
    SoftPooled {
        /// Divides the logits.
        temperature: f32,
        /// What the softmax is taken of.
        logits: Logits,
    },
    /// Cosine of the pooled texts.
    Cosine,
}

/// What the softmax of a soft scorer is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Logits {
    /// Raw dot products: the paper's.
    #[default]
    Raw,
    /// Dot products with the target state scaled to length 1.
    UnitTarget,
    /// Cosines.
    Cosine,
}

/// Over whose tokens a two-sided softmax runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// For each query token, over the target's tokens: the paper's.
    #[default]
    Target,
    /// For each target token, over the query's tokens.
    Query,
    /// The mean of the scores of the two. With raw dot products or cosines as logits it is symmetric: query and target may change
    /// places.
    Both,
}

/// Whether token scores are added or averaged: over the query's tokens, or over the target's where the
/// softmax runs over the query. Over the query's tokens the order of one query's hits is the same either
/// way; the mean is comparable between queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Divided by the number of counted tokens.
    #[default]
    Mean,
    /// Added up.
    Sum,
}

/// A scorer, and whether the tokens that the tokenizer adds around a text count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// The scorer.
    #[serde(flatten)]
    pub scorer: Scorer,
    /// Whether special tokens count as query and target tokens. Pooled vectors always hold what the
    /// model's pooling puts into them.
    pub special_tokens: bool,
}

impl Scoring {
    /// The scorer with a [`Scorer::name`]: `own` where that is its name, else one with the usual options. `None` for what is no name.
    pub fn named(name: &str, own: Self) -> Option<Self> {
        let scorer = match name {
            name if name == own.scorer.name() => own.scorer,
            "soft" => Self::default().scorer,
            "soft-pooled" => Scorer::SoftPooled { temperature: 1.0, logits: Logits::Raw },
            "maxsim" => Scorer::MaxSim { reduction: Reduction::Mean },
            "cosine" => Scorer::Cosine,
            _ => return None,
        };
        Some(Self { scorer, ..own })
    }

    /// Whether the options make sense, before anything is encoded.
    ///
    /// # Errors
    /// [`Error::Argument`] for a temperature that is not a positive number.
    pub fn check(&self) -> Result<()> {
        self.scorer.pass().map(|_| ())
    }
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            scorer: Scorer::SoftLateInteraction {
                temperature: 0.1,
                logits: Logits::Raw,
                axis: Axis::Target,
                reduction: Reduction::Mean,
            },
            special_tokens: true,
        }
    }
}

impl Scorer {
    /// The name used in options and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SoftLateInteraction { .. } => "soft",
            Self::MaxSim { .. } => "maxsim",
            Self::SoftPooled { .. } => "soft-pooled",
            Self::Cosine => "cosine",
        }
    }

    /// Whether the query is pooled before it is scored.
    pub(crate) fn pools_query(&self) -> bool {
        matches!(self, Self::Cosine)
    }

    /// Whether targets are scored by their pooled vectors.
    pub(crate) fn pools_targets(&self) -> bool {
        matches!(self, Self::Cosine | Self::SoftPooled { .. })
    }

    /// The kernel's form of this scorer.
    pub(crate) fn pass(&self) -> Result<Pass> {
        let (aggregation, temperature, logits, reduction) = match *self {
            Self::SoftLateInteraction { temperature, logits, axis, reduction } => {
                let aggregation = match axis {
                    Axis::Target => Aggregation::SoftOverTarget,
                    Axis::Query => Aggregation::SoftOverQuery,
                    Axis::Both => Aggregation::SoftOverBoth,
                };
                (aggregation, temperature, logits, reduction)
            }
            Self::MaxSim { reduction } => (Aggregation::Max, 1.0, Logits::Raw, reduction),
            Self::SoftPooled { temperature, logits } => {
                (Aggregation::SoftOverQuery, temperature, logits, Reduction::Sum)
            }
            Self::Cosine => (Aggregation::Max, 1.0, Logits::Raw, Reduction::Sum),
        };
        if !(temperature.is_finite() && temperature >= 1e-6) {
            return Err(Error::Argument {
                name: "temperature",
                problem: format!("{temperature} is not a number of at least 0.000001"),
            });
        }
        Ok(Pass {
            aggregation,
            temperature,
            unit_query: logits == Logits::Cosine,
            unit_target: logits != Logits::Raw,
            mean: reduction == Reduction::Mean,
        })
    }
}

impl fmt::Display for Scoring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.scorer.name())?;
        match self.scorer {
            Scorer::SoftLateInteraction { temperature, logits, axis, reduction } => write!(
                formatter,
                " (temperature {temperature}, logits {logits:?}, axis {axis:?}, {reduction:?})"
            )?,
            Scorer::MaxSim { reduction } => write!(formatter, " ({reduction:?})")?,
            Scorer::SoftPooled { temperature, logits } => {
                write!(formatter, " (temperature {temperature}, logits {logits:?})")?;
            }
            Scorer::Cosine => {}
        }
        if !self.special_tokens {
            formatter.write_str(" without special tokens")?;
        }
        Ok(())
    }
}
