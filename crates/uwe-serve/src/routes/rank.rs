//! Ranking and scoring, the service's own routes.

use crate::app::{App, Question};
use crate::engine::{Asked, Timing, gather};
use crate::error::{ApiError, Code, ErrorBody};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uwe::{BuildOptions, EvidenceRecord, Hit, Ranker, Scorer, Scoring, Space, StateType, Targets};

/// Tokens of a space that take as long to rank against as one token takes to encode, for a query's token.
const SPACE_TOKENS: usize = 12_000;

/// How many times the most hits of a text a request may have in all.
const REQUEST_HITS: usize = 10;

/// Time to explain a hit, in tokens to encode.
const EVIDENCE_TOKENS: usize = 8;

/// Texts to rank against a space.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RankRequest {
    /// The texts: job titles, skills, sentences.
    #[schema(min_items = 1, example = json!(["night nurse in intensive care"]))]
    texts: Vec<String>,
    /// Name of the target space.
    #[schema(example = "starter")]
    space: String,
    /// Hits for each text.
    #[serde(default = "ten")]
    #[schema(default = 10, minimum = 1)]
    top: usize,
    /// Leaves out hits below this score.
    threshold: Option<f32>,
    /// How texts are scored: `soft`, `soft-pooled`, `maxsim` or `cosine`; without it, as the model was trained.
    #[schema(pattern = "^(soft|soft-pooled|maxsim|cosine)$")]
    scorer: Option<String>,
    /// A scorer with all its options, in the place of `scorer`; `/info` shows the model's own.
    #[schema(value_type = Option<Object>)]
    scoring: Option<Scoring>,
    /// Says which words met, and how much each pair added.
    #[serde(default)]
    evidence: bool,
}

fn ten() -> usize {
    10
}

/// Hits of every text.
#[derive(Serialize, ToSchema)]
pub(super) struct RankResponse {
    /// The model's name.
    model: String,
    /// The space's name.
    space: String,
    /// The scorer with its options.
    scorer: String,
    /// One for each text, in their order.
    results: Vec<RankResult>,
}

/// Hits of one text.
#[derive(Serialize, ToSchema)]
pub(super) struct RankResult {
    /// The text.
    query: String,
    /// Whether its end was left out, because it has more tokens than the model reads.
    truncated: bool,
    /// Best first.
    hits: Vec<HitResult>,
}

/// A target with its score.
#[derive(Serialize, ToSchema)]
struct HitResult {
    /// From 1.
    rank: usize,
    /// The target's text.
    target: String,
    /// The target's identifier, such as its ESCO URI.
    id: Option<String>,
    /// The score.
    score: f32,
    /// Which words met.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    evidence: Option<EvidenceRecord>,
}

/// Ranks texts against a target space.
#[utoipa::path(post, path = "/v1/rank", tag = "rank", security(("key" = [])), request_body = RankRequest, responses(
    (status = 200, body = RankResponse),
    (status = "4XX", description = "Refused", body = ErrorBody),
    (status = 503, description = "Stopping, or not ready in time", body = ErrorBody),
))]
pub(super) async fn rank(
    State(app): State<Arc<App>>,
    Question(request): Question<RankRequest>,
) -> Result<Response, ApiError> {
    let most = if request.evidence { app.limits().evidence_hits } else { app.limits().hits };
    if request.top == 0 || request.top > most {
        return Err(ApiError::value(
            format!("`top` is {}; it is from 1 to {most} here", request.top),
            "ask for fewer hits, or for hits without evidence",
        ));
    }
    let asked = request.texts.len().saturating_mul(request.top);
    if asked > REQUEST_HITS * most {
        return Err(ApiError::new(
            Code::TooLarge,
            format!(
                "{} texts with {} hits each are more than {} hits",
                request.texts.len(),
                request.top,
                REQUEST_HITS * most
            ),
            "ask for fewer texts or hits at a time, or for hits without evidence",
        ));
    }
    if request.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return Err(ApiError::value("`threshold` is no finite number", "give a score, such as 0.3"));
    }
    let scoring = app.scoring(request.scorer.as_deref(), request.scoring)?;
    let space = app.spaces.get(&request.space)?;
    app.check(&request.texts)?;
    let (model, texts) = (app.model.clone(), request.texts.clone());
    let most_tokens = app.encoder().tokenizer().max_tokens();
    let explained = if request.evidence { asked * EVIDENCE_TOKENS } else { 0 };
    let cost = cost((&space, &scoring), &texts, most_tokens).saturating_add(explained);
    let work = move |encoder: &uwe::Encoder, encodings: &[Arc<crate::engine::Encoding>]| {
        let ranker = Ranker::new(encoder, &space, scoring)?;
        let dimension = encoder.info().dimension;
        let rankings = ranker.rank_encoded(&gather(encodings, dimension)?, request.top)?;
        let mut results = Vec::with_capacity(rankings.len());
        for (index, (query, ranking)) in request.texts.into_iter().zip(rankings).enumerate() {
            let encoded =
                request.evidence.then(|| gather(&encodings[index..=index], dimension)).transpose()?;
            let mut hits = Vec::new();
            // An empty text has special tokens only; whatever they meet says nothing about it.
            let found = if query.trim().is_empty() { Vec::new() } else { ranking.hits };
            for hit in
                found.into_iter().filter(|hit| request.threshold.is_none_or(|least| hit.score >= least))
            {
                let evidence = match &encoded {
                    None => None,
                    Some(encoded) => Some(ranker.evidence_for(&query, encoded, hit.target)?),
                };
                hits.extend(hit_result(&space, (hits.len() + 1, hit), (&query, evidence)));
            }
            results.push(RankResult { query, truncated: ranking.truncated, hits });
        }
        Ok(RankResponse { model, space: request.space, scorer: scoring.to_string(), results })
    };
    let (response, timing) = app.ask(Asked { further: cost, ..Asked::of(&texts) }, work).await?;
    Ok((Extension(timing), Json(response)).into_response())
}

/// Time to rank texts, in tokens to encode.
fn cost((space, scoring): (&Space, &Scoring), texts: &[String], most_tokens: usize) -> usize {
    let words: usize = texts.iter().map(|text| (text.len() / 5 + 2).min(most_tokens)).sum();
    let tokens = match scoring.scorer {
        Scorer::SoftLateInteraction { .. } | Scorer::MaxSim { .. } => space.tokens(),
        Scorer::SoftPooled { .. } | Scorer::Cosine => space.len(),
    };
    words.saturating_mul(tokens) / SPACE_TOKENS
}

fn hit_result(
    space: &Space,
    (rank, hit): (usize, Hit),
    (query, evidence): (&str, Option<uwe::Evidence>),
) -> Option<HitResult> {
    let target = space.target(hit.target)?;
    Some(HitResult {
        rank,
        target: target.text().to_string(),
        id: target.id().filter(|id| !id.is_empty()).map(str::to_string),
        score: hit.score,
        evidence: evidence
            .map(|evidence| evidence.by_words(query, target.text()).record(query, target.text())),
    })
}

/// Texts to score against each other.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScoreRequest {
    /// The text that asks.
    #[schema(example = "pastry chef")]
    query: String,
    /// The texts to score.
    #[schema(min_items = 1, example = json!(["bake cakes", "weld pipes"]))]
    targets: Vec<String>,
    /// How texts are scored: `soft`, `soft-pooled`, `maxsim` or `cosine`; without it, as the model was trained.
    #[schema(pattern = "^(soft|soft-pooled|maxsim|cosine)$")]
    scorer: Option<String>,
    /// A scorer with all its options, in the place of `scorer`.
    #[schema(value_type = Option<Object>)]
    scoring: Option<Scoring>,
    /// Says which words met, and how much each pair added.
    #[serde(default)]
    evidence: bool,
}

/// Scores in the order of the targets.
#[derive(Serialize, ToSchema)]
pub(super) struct ScoreResponse {
    /// The model's name.
    model: String,
    /// The scorer with its options.
    scorer: String,
    /// Whether the query's end was left out.
    truncated: bool,
    /// One for each target, in their order.
    scores: Vec<ScoreResult>,
}

/// A target's score.
#[derive(Serialize, ToSchema)]
struct ScoreResult {
    /// The target.
    target: String,
    /// Whether its end was left out.
    truncated: bool,
    /// The score; 0 where a text is empty.
    score: f32,
    /// Which words met.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    evidence: Option<EvidenceRecord>,
}

/// Scores targets for a text.
#[utoipa::path(post, path = "/v1/score", tag = "rank", security(("key" = [])), request_body = ScoreRequest, responses(
    (status = 200, body = ScoreResponse),
    (status = "4XX", description = "Refused", body = ErrorBody),
    (status = 503, description = "Stopping, or not ready in time", body = ErrorBody),
))]
pub(super) async fn score(
    State(app): State<Arc<App>>,
    Question(request): Question<ScoreRequest>,
) -> Result<Response, ApiError> {
    if request.targets.is_empty() {
        return Err(ApiError::value("`targets`: there is no text", "send at least one"));
    }
    let most = app.limits().evidence_hits;
    if request.evidence && request.targets.len() > most {
        return Err(ApiError::new(
            Code::TooLarge,
            format!("{} targets with evidence are more than {most}", request.targets.len()),
            "send fewer at a time, or ask without evidence",
        ));
    }
    let scoring = app.scoring(request.scorer.as_deref(), request.scoring)?;
    let (found, timing) = score_texts(
        &app,
        (request.query, request.targets),
        How { scoring, evidence: request.evidence, whole: false },
    )
    .await?;
    let response = ScoreResponse {
        model: app.model.clone(),
        scorer: scoring.to_string(),
        truncated: found.truncated,
        scores: found.scores,
    };
    Ok((Extension(timing), Json(response)).into_response())
}

/// Scores of some targets.
pub(super) struct Scores {
    truncated: bool,
    scores: Vec<ScoreResult>,
}

impl Scores {
    /// How many texts, the query among them, were cut at the model's limit.
    pub(super) fn cut(&self) -> usize {
        usize::from(self.truncated) + self.scores.iter().filter(|result| result.truncated).count()
    }

    /// Indices of the targets with their scores, best first, equal ones in their order.
    pub(super) fn sorted(&self) -> Vec<(usize, f32)> {
        let scores: Vec<f32> = self.scores.iter().map(|result| result.score).collect();
        uwe::best(&scores, scores.len()).into_iter().map(|hit| (hit.target, hit.score)).collect()
    }
}

/// How texts are scored, and what comes with the scores.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) scoring: Scoring,
    pub(super) evidence: bool,
    /// Whether a text that the model would cut is refused.
    pub(super) whole: bool,
}

/// Scores `targets` for `query`.
pub(super) async fn score_texts(
    app: &App,
    (query, targets): (String, Vec<String>),
    How { scoring, evidence: with_evidence, whole }: How,
) -> Result<(Scores, Timing), ApiError> {
    app.check(&targets)?;
    let mut texts = vec![query];
    app.check(&texts)?;
    // Places in a target are counted from its first word.
    texts.extend(targets.iter().map(|target| target.trim().to_string()));
    let asked = texts.clone();
    let further = asked.len() * if with_evidence { EVIDENCE_TOKENS } else { 1 };
    let work = move |encoder: &uwe::Encoder, encodings: &[Arc<crate::engine::Encoding>]| {
        let dimension = encoder.info().dimension;
        let states = gather(&encodings[1..], dimension)?.states;
        let query = gather(&encodings[..1], dimension)?;
        let scores = uwe::score_encoded(encoder, (&query.states, &states), &scoring)?;
        let empty = |text: &str| text.trim().is_empty();
        let mut results = Vec::with_capacity(texts.len() - 1);
        for ((target, encoding), score) in
            texts[1..].iter().zip(&encodings[1..]).zip(scores.into_iter().flatten())
        {
            let says_nothing = empty(&texts[0]) || empty(target);
            let evidence = match with_evidence && !says_nothing {
                true => Some(evidence(encoder, (&texts[0], &query), (target, scoring))?),
                false => None,
            };
            results.push(ScoreResult {
                target: target.clone(),
                truncated: encoding.tokens.truncated,
                score: if says_nothing { 0.0 } else { score },
                evidence,
            });
        }
        Ok(Scores { truncated: encodings[0].tokens.truncated, scores: results })
    };
    app.ask(Asked { whole, further, ..Asked::of(&asked) }, work).await
}

/// Evidence of one pair.
fn evidence(
    encoder: &uwe::Encoder,
    (text, query): (&str, &uwe::Encoded),
    (target, scoring): (&str, Scoring),
) -> Result<EvidenceRecord, ApiError> {
    let mut targets = Targets::new("request", &[]);
    targets.push(target, Vec::new());
    let space = Space::in_memory(encoder, &targets, BuildOptions { states: StateType::F32 })?;
    let ranker = Ranker::new(encoder, &space, scoring)?;
    Ok(ranker.evidence_for(text, query, 0)?.by_words(text, target).record(text, target))
}
