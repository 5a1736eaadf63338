//! Ranking: the one place where encoder, scorer and space meet.

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Side};
use crate::kernel::{LANES, QueryTokens, TopK, inverse_norm, mean_of_rows};
use crate::model::{Encoded, Encoder, Pooling, TokenStates};
use crate::score::Scoring;
use crate::space::{Space, StateType};

/// Pooled panels that are scored in one go.
const POOLED_PANELS: usize = 8;

/// Queries that are scored against a panel in one go: memory for scores stays bounded whatever comes in.
const QUERY_TILE: usize = 256;

/// Ranks texts against a target space.
#[derive(Debug)]
pub struct Ranker<'a> {
    encoder: &'a Encoder,
    space: &'a Space,
    scoring: Scoring,
}

/// The best targets of one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Whether the query's end was left out, because it has more tokens than the limit.
    pub truncated: bool,
    /// Hits by score descending, then target index ascending.
    pub hits: Vec<Hit>,
}

/// One target with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Index of the target in its space.
    pub target: usize,
    /// The score; never NaN.
    pub score: f32,
}

impl<'a> Ranker<'a> {
    /// Brings an encoder, a space and a scorer together.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the space was built with another model or tokenizer, [`Error::Argument`] for
    /// a scorer whose options make no sense.
    pub fn new(encoder: &'a Encoder, space: &'a Space, scoring: Scoring) -> Result<Self> {
        space.fits(encoder)?;
        scoring.scorer.pass()?;
        Ok(Self { encoder, space, scoring })
    }

    /// Encodes and ranks texts; the best `top` targets of each, in the order of the texts.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`], and [`Error::Space`] when the space turns out to be damaged.
    pub fn rank<T: AsRef<str> + Sync>(&self, texts: &[T], top: usize) -> Result<Vec<Ranking>> {
        self.rank_encoded(&self.encoder.encode(texts)?, top)
    }

    /// Ranks texts that are already encoded.
    ///
    /// # Errors
    /// [`Error::Space`] when the space turns out to be damaged, [`Error::Argument`] for a `top` of 0.
    pub fn rank_encoded(&self, queries: &Encoded, top: usize) -> Result<Vec<Ranking>> {
        if top == 0 {
            return Err(Error::Argument {
                name: "top",
                problem: "0 hits are none; ask for 1 or more".into(),
            });
        }
        let prepared = Prepared::new(self, &queries.states)?;
        let mut rankings = Vec::with_capacity(queries.tokens.len());
        for tile in prepared.tiles(QUERY_TILE) {
            let kept = prepared.keep_best(&tile, top)?;
            let truncated = queries.tokens[rankings.len()..].iter().map(|tokens| tokens.truncated);
            let tile: Vec<Ranking> = kept
                .into_iter()
                .zip(truncated)
                .map(|(best, truncated)| Ranking {
                    truncated,
                    hits: best
                        .into_sorted()
                        .into_iter()
                        .map(|(score, target)| Hit { target, score })
                        .collect(),
                })
                .collect();
            rankings.extend(tile);
        }
        Ok(rankings)
    }

    /// The encoder.
    pub fn encoder(&self) -> &'a Encoder {
        self.encoder
    }

    /// The target space.
    pub fn space(&self) -> &'a Space {
        self.space
    }

    /// How texts are scored.
    pub fn scoring(&self) -> &Scoring {
        &self.scoring
    }

    /// Scores all targets for texts that are already encoded: `scores[query][target]`, in the order of the
    /// space. The form for measurements, which need whole rows; [`Ranker::rank_encoded`] needs no such memory.
    ///
    /// # Errors
    /// [`Error::Space`] when the space turns out to be damaged.
    pub fn score_all(&self, queries: &TokenStates) -> Result<Vec<Vec<f32>>> {
        Prepared::new(self, queries)?.rows()
    }

    /// Which tokens of query and target met in a hit, and what each pair added to the score.
    ///
    /// # Errors
    /// [`Error::Argument`] for a target beyond the space.
    pub fn evidence(&self, query: &str, target: usize) -> Result<Evidence> {
        self.evidence_for(query, &self.encoder.encode(&[query])?, target)
    }

    /// [`Ranker::evidence`] for a query that is already encoded, alone: hits of one query share its states.
    ///
    /// # Errors
    /// [`Error::Argument`] for a target beyond the space, or when not one text is encoded.
    pub fn evidence_for(&self, query: &str, encoded: &Encoded, target: usize) -> Result<Evidence> {
        let [tokens] = &encoded.tokens[..] else {
            return Err(Error::Argument {
                name: "query",
                problem: format!("evidence is for one text; {} are encoded", encoded.tokens.len()),
            });
        };
        let text = self.space.target(target).map(|target| target.text().to_string()).ok_or_else(|| {
            Error::Argument {
                name: "target",
                problem: format!("{target} is beyond the {} targets", self.space.len()),
            }
        })?;
        let (special, pooling) = (self.encoder.tokenizer().special_tokens(), self.encoder.info().pooling);
        let side = |text, tokens, states| Side { text, tokens, states, special, pooling };
        let target_tokens = self.encoder.tokenizer().tokenize(&text)?;
        let stored = self.space.states_of(target, false)?;
        let pooled = self.space.states_of(target, true)?;
        Evidence::explain(
            &self.scoring,
            side(query, tokens, encoded.states.text(0)),
            side(&text, &target_tokens, &stored),
            (&self.encoder.pool(encoded.states.text(0)), &pooled),
        )
    }
}

/// The best `top` of some scores, by the one order of hits: score descending, then index ascending.
pub fn best(scores: &[f32], top: usize) -> Vec<Hit> {
    let mut kept = TopK::new(top.min(scores.len()));
    scores.iter().enumerate().for_each(|(target, score)| kept.offer(*score, target));
    kept.into_sorted().into_iter().map(|(score, target)| Hit { target, score }).collect()
}

/// Scores all targets of a space for each query: `scores[query][target]`, in the order of the space.
///
/// The token states may come from any encoder; pooled scorers take the mean of the query's states. This is
/// the form for benchmarks, which need whole rows; [`Ranker`] keeps the best few and needs no such memory.
///
/// # Errors
/// [`Error::Argument`] when the dimensions differ, [`Error::Space`] when the space is damaged.
pub fn score_all(
    compute: &Compute,
    queries: &TokenStates,
    space: &Space,
    scoring: &Scoring,
) -> Result<Vec<Vec<f32>>> {
    let special = space.meta().special_tokens;
    Prepared::gather(compute, queries, (space, special), (scoring, Pooling::Mean))?.rows()
}

/// Scores texts against each other that this encoder has encoded: `scores[query][target]`, as a [`Ranker`] over a space of
/// the targets in full precision would.
///
/// # Errors
/// [`Error::Argument`] for token states of another width, or a text without a token.
pub fn score_encoded(
    encoder: &Encoder,
    (queries, targets): (&TokenStates, &TokenStates),
    scoring: &Scoring,
) -> Result<Vec<Vec<f32>>> {
    let special = encoder.tokenizer().special_tokens();
    let space = Space::assemble(targets, (special, StateType::F32), &|text| encoder.pool(text))?;
    let pooling = encoder.info().pooling;
    Prepared::gather(encoder.compute(), queries, (&space, special), (scoring, pooling))?.rows()
}

/// Queries in the kernel's form.
struct Prepared<'a> {
    compute: &'a Compute,
    space: &'a Space,
    scoring: &'a Scoring,
    tokens: QueryTokens,
}

impl<'a> Prepared<'a> {
    fn new(ranker: &'a Ranker<'a>, states: &TokenStates) -> Result<Self> {
        let special = ranker.encoder.tokenizer().special_tokens();
        let pooling = ranker.encoder.info().pooling;
        Self::gather(ranker.encoder.compute(), states, (ranker.space, special), (&ranker.scoring, pooling))
    }

    fn gather(
        compute: &'a Compute,
        states: &TokenStates,
        (space, special): (&'a Space, (usize, usize)),
        (scoring, pooling): (&'a Scoring, Pooling),
    ) -> Result<Self> {
        let dimension = space.meta().dimension;
        if states.dimension() != dimension {
            return Err(Error::Argument {
                name: "queries",
                problem: format!("token states of width {}; the space has {dimension}", states.dimension()),
            });
        }
        let (mut values, mut offsets) = (Vec::new(), vec![0]);
        for index in 0..states.len() {
            let text = states.text(index);
            if scoring.scorer.pools_query() {
                match pooling {
                    Pooling::Mean => values.extend(mean_of_rows(text, dimension)),
                    Pooling::FirstToken => values.extend(text.iter().take(dimension)),
                }
            } else if scoring.special_tokens {
                values.extend_from_slice(text);
            } else {
                let end = (text.len() / dimension).saturating_sub(special.1);
                values.extend_from_slice(&text[special.0.min(end) * dimension..end * dimension]);
            }
            offsets.push(values.len() / dimension);
        }
        let inverse_norms = values.chunks_exact(dimension).map(inverse_norm).collect();
        Ok(Self {
            compute,
            space,
            scoring,
            tokens: QueryTokens { states: values, inverse_norms, offsets, dimension },
        })
    }

    /// The queries in groups of at most `size`.
    fn tiles(&self, size: usize) -> Vec<QueryTokens> {
        let dimension = self.tokens.dimension;
        (0..self.tokens.len())
            .step_by(size)
            .map(|first| {
                let last = (first + size).min(self.tokens.len());
                let offsets = &self.tokens.offsets[first..=last];
                let tokens = offsets[0]..offsets[last - first];
                QueryTokens {
                    states: self.tokens.states[tokens.start * dimension..tokens.end * dimension].to_vec(),
                    inverse_norms: self.tokens.inverse_norms[tokens.clone()].to_vec(),
                    offsets: offsets.iter().map(|offset| offset - tokens.start).collect(),
                    dimension,
                }
            })
            .collect()
    }

    /// Scores `queries` against every panel: `visit(state, panel, scores)` with `scores[query * 16 + lane]`,
    /// one state a job of neighbouring panels. States come back in order of their panels.
    fn each_panel<S: Send>(
        &self,
        queries: &QueryTokens,
        state: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, &[f32]) + Sync,
    ) -> Result<Vec<(usize, S)>> {
        let pass = self.scoring.scorer.pass()?;
        let panels = self.space.panel_count();
        let jobs = if self.compute.threads() == 1 { 1 } else { self.compute.threads() * 4 };
        let size = panels.div_ceil(jobs).max(1);
        let starts: Vec<usize> = (0..panels).step_by(size).collect();
        self.compute.map(starts, |(dots, scores): &mut (Vec<f32>, Vec<f32>), start| {
            let mut state = state();
            let end = (start + size).min(panels);
            let pooled = self.scoring.scorer.pools_targets();
            for first in (start..end).step_by(if pooled { POOLED_PANELS } else { 1 }) {
                let group = if pooled {
                    (first..(first + POOLED_PANELS).min(end))
                        .map(|panel| self.space.pooled_panel(panel))
                        .collect()
                } else {
                    vec![self.space.panel(first, self.scoring.special_tokens)?]
                };
                let width = queries.len() * LANES;
                scores.resize(group.len() * width, 0.0);
                pass.score_panels(self.compute.instruction_set(), queries, &group, (dots, scores));
                for (offset, scores) in scores.chunks_exact(width).enumerate() {
                    visit(&mut state, first + offset, scores);
                }
            }
            Ok((start, state))
        })
    }

    /// Scores of all targets for all queries.
    fn rows(&self) -> Result<Vec<Vec<f32>>> {
        let mut rows = Vec::with_capacity(self.tokens.len());
        for tile in self.tiles(QUERY_TILE) {
            rows.extend(self.all_scores(&tile)?);
        }
        Ok(rows)
    }

    fn keep_best(&self, queries: &QueryTokens, top: usize) -> Result<Vec<TopK>> {
        let order = self.space.order();
        let fresh = || (0..queries.len()).map(|_| TopK::new(top.min(self.space.len()))).collect::<Vec<_>>();
        let parts = self.each_panel(queries, fresh, |kept, panel, scores| {
            let targets = &order[panel * LANES..(panel + 1) * LANES];
            for (best, scores) in kept.iter_mut().zip(scores.chunks_exact(LANES)) {
                for (target, score) in targets.iter().zip(scores).filter(|(target, _)| **target != u32::MAX) {
                    best.offer(*score, *target as usize);
                }
            }
        })?;
        let mut all = fresh();
        for (_, part) in parts {
            all.iter_mut().zip(part).for_each(|(best, part)| best.merge(part));
        }
        Ok(all)
    }

    fn all_scores(&self, queries: &QueryTokens) -> Result<Vec<Vec<f32>>> {
        let order = self.space.order();
        let parts = self.each_panel(queries, Vec::new, |kept: &mut Vec<Vec<f32>>, _, scores| {
            kept.push(scores.to_vec());
        })?;
        let mut rows = vec![vec![0.0; self.space.len()]; queries.len()];
        for (start, part) in parts {
            for (offset, scores) in part.iter().enumerate() {
                let targets = &order[(start + offset) * LANES..(start + offset + 1) * LANES];
                for (row, scores) in rows.iter_mut().zip(scores.chunks_exact(LANES)) {
                    for (target, score) in
                        targets.iter().zip(scores).filter(|(target, _)| **target != u32::MAX)
                    {
                        row[*target as usize] = *score;
                    }
                }
            }
        }
        Ok(rows)
    }
}
