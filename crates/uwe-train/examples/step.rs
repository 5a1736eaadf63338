//! Times the steps of a training, and writes their batches for peers that repeat them.
//!
//! usage: step MODEL GRAPH BATCH STEPS OUT.json
//!
//! Prints JSON: seconds of each step (drawing and tokenising included), tokens and losses. Peak memory is the caller's to measure.

use std::error::Error;
use std::path::Path;
use std::time::Instant;
use uwe::{ModelFolder, Tokenizer};
use uwe_graph::GraphFile;
use uwe_train::{Batch, GraphTask, Network, Objective, Optimizer, Parameters, Recipe, Sampler, Threads};

#[allow(clippy::print_stdout, reason = "an example speaks on standard output")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, graph, batch, steps, out] = &arguments[..] else {
        return Err("usage: step MODEL GRAPH BATCH STEPS OUT.json".into());
    };
    let recipe = Recipe { batch: batch.parse()?, steps: steps.parse()?, ..Recipe::default() };
    let folder = ModelFolder::open(Path::new(model))?;
    let mut parameters = Parameters::read(&folder.weights, &Network::order(&folder.config))?;
    let network = Network::new(&folder.config, &parameters, Threads::new(0)?)?;
    let tokenizer = Tokenizer::open(&folder.tokenizer, recipe.max_tokens)?;
    let graph = GraphFile::read(Path::new(graph))?;
    let sampler = Sampler::new(&graph.edges, &recipe)?;
    let objective = Objective {
        scoring: recipe.scoring,
        variant: recipe.variant,
        reverse: recipe.reverse,
        pooling: folder.pooling,
        special_tokens: tokenizer.special_tokens(),
        keep_activations: true,
    };
    let mut optimizer = Optimizer::new(&recipe.optimizer, recipe.steps, &parameters);
    let (mut seconds, mut losses, mut tokens, mut batches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..recipe.steps {
        let started = Instant::now();
        let drawn = sampler.draw(number);
        let ids: Vec<Vec<u32>> = drawn
            .texts
            .iter()
            .map(|text| Ok(tokenizer.tokenize(text)?.ids))
            .collect::<Result<_, uwe::Error>>()?;
        let batch = Batch::new(ids.iter().map(Vec::as_slice));
        let graphs: Vec<GraphTask> =
            drawn.graphs.iter().map(|graph| graph.task(&recipe.graphs[&graph.graph])).collect();
        let step = objective.step(&network, &parameters.values, &batch, &graphs)?;
        let norm = optimizer.norm(&step.gradient);
        optimizer.apply(number, &mut parameters.values, (&step.gradient, norm), network.threads());
        seconds.push(started.elapsed().as_secs_f64());
        losses.push(step.loss);
        tokens.push(batch.ids.len());
        let graphs: Vec<_> = drawn
            .graphs
            .iter()
            .zip(&graphs)
            .map(|(drawn, task)| {
                serde_json::json!({"skills": drawn.skills, "items": drawn.texts, "links": drawn.links.columns,
                    "weight": task.weight, "temperature": task.temperature})
            })
            .collect();
        batches.push(serde_json::json!({"ids": ids, "graphs": graphs}));
    }
    std::fs::write(out, serde_json::to_vec(&batches)?)?;
    println!("{}", serde_json::json!({"seconds": seconds, "losses": losses, "tokens": tokens}));
    Ok(())
}
