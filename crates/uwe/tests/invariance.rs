//! What must not matter does not: neighbours, batches, threads, instruction sets, chunks, order of targets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

use proptest::prelude::*;
use std::path::Path;
use uwe::{
    Axis, BuildOptions, Compute, Encoder, EncoderOptions, InstructionSet, Logits, Precision, Ranker,
    Reduction, Scorer, Scoring, Space, StateType, Targets, TokenStates, score_all,
};

fn encoder(name: &str, batch_tokens: usize, threads: usize, set: Option<InstructionSet>) -> Encoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let options = EncoderOptions { batch_tokens, ..EncoderOptions::default() };
    Encoder::open(&folder, options, Compute::new(threads, set).unwrap()).unwrap()
}

fn scorers() -> Vec<Scorer> {
    let soft = |temperature, logits, axis| Scorer::SoftLateInteraction {
        temperature,
        logits,
        axis,
        reduction: Reduction::Mean,
    };
    vec![
        soft(0.1, Logits::Raw, Axis::Target),
        soft(1.0, Logits::Cosine, Axis::Target),
        soft(0.5, Logits::Raw, Axis::Query),
        soft(0.5, Logits::Raw, Axis::Both),
        Scorer::MaxSim { reduction: Reduction::Sum },
        Scorer::SoftPooled { temperature: 1.0, logits: Logits::Raw },
        Scorer::Cosine,
    ]
}

/// A text of the given number of one-character words; each is one token of the tiny vocabulary.
fn text_of(words: usize, seed: usize) -> String {
    (0..words)
        .map(|i| char::from(b'a' + ((i * 7 + seed * 11) % 26) as u8).to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Texts of every length from 1 to 64 tokens and beyond the limit.
fn texts_of_all_lengths() -> Vec<String> {
    (0..66).map(|words| text_of(words, words)).collect()
}

#[test]
fn over_both_axes_is_the_mean_of_the_two_and_symmetric() {
    let encoder = encoder("tiny-bert", 1024, 1, None);
    let texts = texts_of_all_lengths();
    let texts: Vec<&str> = texts.iter().step_by(5).map(String::as_str).collect();
    let states = encoder.encode(&texts).unwrap().states;
    let space = Space::from_states(&states, (1, 1), StateType::F32).unwrap();
    let compute = Compute::new(1, None).unwrap();
    for (logits, reduction, special_tokens) in [
        (Logits::Raw, Reduction::Mean, true),
        (Logits::Cosine, Reduction::Sum, true),
        (Logits::Raw, Reduction::Mean, false),
    ] {
        let all = |axis| {
            let scorer = Scorer::SoftLateInteraction { temperature: 0.5, logits, axis, reduction };
            score_all(&compute, &states, &space, &Scoring { scorer, special_tokens }).unwrap()
        };
        let (target, query, both) = (all(Axis::Target), all(Axis::Query), all(Axis::Both));
        for i in 0..texts.len() {
            for j in 0..texts.len() {
                let mean = (target[i][j] + query[i][j]) / 2.0;
                assert!((both[i][j] - mean).abs() <= 1e-6 * mean.abs().max(1.0), "{i} {j}");
                assert!((both[i][j] - both[j][i]).abs() <= 1e-5 * mean.abs().max(1.0), "{i} {j}");
            }
        }
    }
}

#[test]
fn states_are_the_same_bits_alone_and_in_every_batch_thread_count_and_instruction_set() {
    let texts = texts_of_all_lengths();
    for name in ["tiny-bert", "tiny-mpnet"] {
        let alone: Vec<Vec<f32>> = {
            let encoder = encoder(name, 1, 1, Some(InstructionSet::Scalar));
            texts.iter().map(|text| encoder.encode(&[text]).unwrap().states.values().to_vec()).collect()
        };
        assert_eq!(alone[0].len(), 2 * 32);
        assert_eq!(alone[65].len(), 64 * 32);
        for set in InstructionSet::all().into_iter().filter(|set| set.is_available()) {
            for threads in 1..=8 {
                let batch_tokens = [1, 2, 3, 7, 16, 64, 512, 100_000][threads - 1];
                let all = encoder(name, batch_tokens, threads, Some(set)).encode(&texts).unwrap();
                for (index, expected) in alone.iter().enumerate() {
                    assert_eq!(all.states.text(index), expected, "{name} {set} {threads} text {index}");
                }
            }
        }
    }
}

#[test]
fn narrow_precisions_do_not_depend_on_neighbours_either() {
    let texts = texts_of_all_lengths();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-mpnet");
    for precision in [Precision::Bf16, Precision::Int16].into_iter().filter(|p| p.is_available()) {
        let options = EncoderOptions { precision, ..EncoderOptions::default() };
        let encoder = Encoder::open(&folder, options, Compute::new(2, None).unwrap()).unwrap();
        let all = encoder.encode(&texts).unwrap();
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(
                all.states.text(index),
                encoder.encode(&[text]).unwrap().states.values(),
                "{precision}"
            );
        }
    }
}

#[test]
fn batches_of_1_to_64_texts_give_the_same_rankings() {
    let encoder = encoder("tiny-bert", 512, 2, None);
    let mut targets = Targets::new("test", &[]);
    texts_of_all_lengths().iter().for_each(|text| {
        targets.push(text, Vec::new());
    });
    let space = Space::in_memory(&encoder, &targets, BuildOptions::default()).unwrap();
    let queries: Vec<String> = (0..64).map(|i| text_of(1 + i % 9, i * 3 + 1)).collect();
    let ranker = Ranker::new(&encoder, &space, Scoring::default()).unwrap();
    let expected: Vec<_> = queries.iter().flat_map(|query| ranker.rank(&[query], 20).unwrap()).collect();
    for size in 1..=64 {
        let batched: Vec<_> = queries.chunks(size).flat_map(|part| ranker.rank(part, 20).unwrap()).collect();
        assert_eq!(batched, expected, "batches of {size}");
    }
    let whole = ranker.rank(&queries, 1_000_000).unwrap();
    for (ranking, expected) in whole.iter().zip(&expected) {
        assert_eq!(ranking.hits.len(), space.len(), "k beyond the space gives every target");
        assert_eq!(ranking.hits[..20], expected.hits[..]);
    }
}

/// Ragged states of the given lengths with numbers between -1 and 1.
fn states(lengths: &[usize], dimension: usize, seed: u64) -> TokenStates {
    let mut offsets = vec![0];
    for length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length);
    }
    let mut x = seed | 1;
    let values = (0..offsets[lengths.len()] * dimension)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x % 2_000_001) as f32 / 1_000_000.0 - 1.0
        })
        .collect();
    TokenStates::new(values, offsets, dimension).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn scores_do_not_depend_on_anything_beside_the_pair(
        queries in prop::collection::vec(1usize..=64, 1..6),
        targets in prop::collection::vec(1usize..=64, 1..40),
        dimension in prop::sample::select(vec![8usize, 16, 24, 48]),
        seed in any::<u64>(),
        scorer in prop::sample::select(scorers()),
        special_tokens in any::<bool>(),
        threads in 1usize..=8,
    ) {
        // With special tokens left out, the first and last of each text do not count.
        let lengthened = |lengths: &[usize]| lengths.iter().map(|length| length + 2).collect::<Vec<_>>();
        let query_states = states(&lengthened(&queries), dimension, seed);
        let target_states = states(&lengthened(&targets), dimension, seed ^ 0x9e37_79b9);
        let scoring = Scoring { scorer, special_tokens };
        let space = Space::from_states(&target_states, (1, 1), StateType::F16).unwrap();
        let scalar = Compute::new(1, Some(InstructionSet::Scalar)).unwrap();
        let expected = score_all(&scalar, &query_states, &space, &scoring).unwrap();
        prop_assert!(expected.iter().flatten().all(|score| score.is_finite()));
        // Other instruction sets and threads: the same bits, hence the same order.
        for set in InstructionSet::all().into_iter().filter(|set| set.is_available()) {
            let compute = Compute::new(threads, Some(set)).unwrap();
            prop_assert_eq!(&score_all(&compute, &query_states, &space, &scoring).unwrap(), &expected);
        }
        // Each pair alone: no other query, no other target, no padding beside it.
        let one = |all: &TokenStates, index: usize| {
            let values = all.text(index).to_vec();
            let tokens = values.len() / dimension;
            TokenStates::new(values, vec![0, tokens], dimension).unwrap()
        };
        let compute = Compute::new(1, None).unwrap();
        for target in 0..targets.len().min(5) {
            let space = Space::from_states(&one(&target_states, target), (1, 1), StateType::F16).unwrap();
            for (query, expected) in expected.iter().enumerate() {
                let score = score_all(&compute, &one(&query_states, query), &space, &scoring).unwrap()[0][0];
                prop_assert_eq!(score.to_bits(), expected[target].to_bits());
            }
        }
    }

    #[test]
    fn extreme_states_never_give_nan(
        magnitude in prop::sample::select(vec![0.0f32, 1e-38, 1e-30, 1e-10, 1.0, 1e4, 1e6]),
        temperature in prop::sample::select(vec![1e-6f32, 1e-3, 1.0, 1e6]),
        seed in any::<u64>(),
    ) {
        let scaled = |lengths: &[usize], seed| {
            let plain = states(lengths, 16, seed);
            let values = plain.values().iter().map(|x| x * magnitude).collect();
            TokenStates::new(values, plain.offsets().to_vec(), 16).unwrap()
        };
        let (queries, targets) = (scaled(&[1, 2, 5], seed), scaled(&[2, 3, 17], seed ^ 1));
        for stored in [StateType::F32, StateType::F16] {
            let space = Space::from_states(&targets, (1, 1), stored).unwrap();
            for logits in [Logits::Raw, Logits::UnitTarget, Logits::Cosine] {
                for axis in [Axis::Target, Axis::Query, Axis::Both] {
                    for special_tokens in [true, false] {
                        let reduction = Reduction::Mean;
                        let scorer = Scorer::SoftLateInteraction { temperature, logits, axis, reduction };
                        let scoring = Scoring { scorer, special_tokens };
                        let compute = Compute::new(1, None).unwrap();
                        let scores = score_all(&compute, &queries, &space, &scoring).unwrap();
                        prop_assert!(scores.iter().flatten().all(|score| score.is_finite()), "{scores:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn any_text_is_encoded_without_a_fault(text in "\\PC*|[\\x00-\\x7f]{0,300}|(a\u{301}\u{300}){0,60}") {
        let encoder = encoder("tiny-bert", 512, 1, None);
        let encoded = encoder.encode(&[&text]).unwrap();
        let tokens = &encoded.tokens[0];
        prop_assert!(tokens.ids.len() <= 64);
        prop_assert!(encoded.states.values().iter().all(|value| value.is_finite()));
        let characters = text.chars().count();
        prop_assert!(tokens.ranges.iter().all(|range| range.start <= range.end && range.end <= characters));
    }
}

#[test]
fn a_text_of_a_megabyte_is_cut_quickly_and_like_its_beginning() {
    let encoder = encoder("tiny-bert", 512, 1, None);
    let long = "bake bread and pastry ".repeat(50_000);
    let tokens = encoder.tokenizer().tokenize(&long).unwrap();
    assert!(tokens.truncated);
    assert_eq!(tokens, encoder.tokenizer().tokenize(&long[..5000]).unwrap());
    for one_word in
        ["x".repeat(1 << 20), "\0".repeat(1 << 20), "a\u{301}".repeat(1 << 19), "(".repeat(1 << 20)]
    {
        let tokens = encoder.tokenizer().tokenize(&one_word).unwrap();
        assert!(tokens.ids.len() <= 64);
    }
}

#[test]
fn contributions_of_the_evidence_add_up_to_the_score() {
    for name in ["tiny-bert", "tiny-mpnet"] {
        let encoder = encoder(name, 512, 1, None);
        let mut targets = Targets::new("test", &[]);
        for text in ["bake bread", "weld pipes", "provide nursing care, day and night", "a"] {
            targets.push(text, Vec::new());
        }
        let space = Space::in_memory(&encoder, &targets, BuildOptions { states: StateType::F32 }).unwrap();
        for scorer in scorers() {
            for special_tokens in [true, false] {
                let ranker = Ranker::new(&encoder, &space, Scoring { scorer, special_tokens }).unwrap();
                for query in ["pastry chef", "naïve Über-cook", "b"] {
                    for hit in &ranker.rank(&[query], 9).unwrap()[0].hits {
                        let evidence = ranker.evidence(query, hit.target).unwrap();
                        let sum: f64 = evidence.pairs.iter().map(|pair| pair.contribution).sum();
                        assert!((sum - f64::from(hit.score)).abs() < 1e-4, "{scorer:?} {sum} {}", hit.score);
                        assert!((sum - evidence.score).abs() < 1e-9);
                        let characters = query.chars().count();
                        for pair in &evidence.pairs {
                            assert!(pair.query.range.clone().is_none_or(|range| range.end <= characters));
                        }
                    }
                }
            }
        }
    }
}
