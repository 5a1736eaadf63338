//! What a step is made of: skills, texts linked to them in each graph, and every link between the two.
//!
//! A step's batch depends on the seed and the number of the step alone. An epoch takes the skills in a shuffled order; the same
//! texts never stand twice on one side of a batch.

use crate::error::{Error, Result};
use crate::loss::Links;
use crate::objective::GraphTask;
use crate::recipe::{Draw, GraphOptions, Recipe};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use uwe_graph::{Edge, Graph, Part, fold};

/// One graph's links, both ways, by the places of skills and texts.
#[derive(Debug)]
struct Side {
    /// Whether its texts are joined now and then.
    sentences: bool,
    /// Pairs of a batch.
    batch: usize,
    /// Texts of each skill, in the graph's order.
    texts: Vec<Vec<u32>>,
    /// Skills of each text.
    skills: HashMap<u32, Vec<u32>>,
    /// All texts, in the graph's order.
    all: Vec<u32>,
}

/// By graph, for the place of each skill, the places of others.
pub(crate) type Neighbours = BTreeMap<String, Vec<Vec<u32>>>;

/// Training edges in the form that batches are drawn from.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    batch: usize,
    join: f64,
    draw: Draw,
    /// Skills by place: text, identifier, and the share of epochs that take it.
    skills: Vec<(String, String, f64)>,
    texts: Vec<String>,
    folded: Vec<String>,
    graphs: BTreeMap<String, Side>,
    /// In each graph, the skills that a drawn skill brings; empty without hard negatives.
    neighbours: Neighbours,
}

/// One graph's part of a batch: row `i` was drawn with column `i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphDraw {
    /// The graph's name in the recipe.
    pub graph: String,
    /// Places of the skills among the draw's texts.
    pub skills: Vec<usize>,
    /// Places of the linked texts among the draw's texts.
    pub texts: Vec<usize>,
    /// All links between the two.
    pub links: Links,
}

/// The texts of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Every text once.
    pub texts: Vec<String>,
    /// The graphs.
    pub graphs: Vec<GraphDraw>,
    /// Identifiers of the first skills.
    pub first_skills: Vec<String>,
}

impl Sampler {
    /// Takes the training edges of the recipe's graphs and sources.
    ///
    /// # Errors
    /// [`Error::Recipe`] when a graph has no edge to train on.
    pub fn new(edges: &[Edge], recipe: &Recipe) -> Result<Self> {
        let mut sampler = Self {
            seed: recipe.seed,
            batch: recipe.batch,
            join: recipe.join_sentences,
            draw: recipe.draw,
            skills: Vec::new(),
            texts: Vec::new(),
            folded: Vec::new(),
            graphs: BTreeMap::new(),
            neighbours: Neighbours::new(),
        };
        let mut skills: HashMap<&str, u32> = HashMap::new();
        let mut texts: HashMap<&str, u32> = HashMap::new();
        let share = |source: &str| recipe.sources.get(source).copied().unwrap_or(1.0);
        for (name, options) in &recipe.graphs {
            let side = Side {
                sentences: recipe.graph_of(name) == Some(Graph::Sentence),
                batch: options.batch.unwrap_or(recipe.batch),
                texts: Vec::new(),
                skills: HashMap::new(),
                all: Vec::new(),
            };
            sampler.graphs.insert(name.clone(), side);
        }
        for edge in edges.iter().filter(|edge| edge.part == Part::Train && share(&edge.source) > 0.0) {
            let part = recipe.part_of(edge.graph, &edge.source);
            let Some(side) = part.and_then(|part| sampler.graphs.get_mut(part)) else { continue };
            let skill = *skills.entry(&edge.skill_id).or_insert_with(|| {
                sampler.skills.push((edge.skill.clone(), edge.skill_id.clone(), 0.0));
                sampler.skills.len() as u32 - 1
            });
            let own_share = &mut sampler.skills[skill as usize].2;
            *own_share = own_share.max(share(&edge.source));
            let text = *texts.entry(&edge.text).or_insert_with(|| {
                sampler.texts.push(edge.text.clone());
                sampler.texts.len() as u32 - 1
            });
            if side.texts.len() <= skill as usize {
                side.texts.resize(skill as usize + 1, Vec::new());
            }
            side.texts[skill as usize].push(text);
            let linked = side.skills.entry(text).or_insert_with(|| {
                side.all.push(text);
                Vec::new()
            });
            linked.push(skill);
        }
        for side in sampler.graphs.values_mut() {
            side.texts.resize(sampler.skills.len(), Vec::new());
            side.texts.iter_mut().chain(side.skills.values_mut()).for_each(|places| {
                places.sort_unstable();
                places.dedup();
            });
        }
        if let Some((graph, _)) = sampler.graphs.iter().find(|(_, side)| side.all.is_empty()) {
            let problem = format!("there is no edge of graph `{graph}` to train on");
            return Err(Error::Recipe { what: "graphs".into(), problem });
        }
        sampler.folded = sampler.skills.iter().map(|(text, ..)| fold(text)).collect();
        Ok(sampler)
    }

    /// Steps of an epoch: what it takes to draw every skill once.
    pub fn epoch(&self) -> u64 {
        (self.skills.len() as u64).div_ceil(self.batch as u64).max(1)
    }

    /// Texts of the skills, in their places.
    pub(crate) fn skills(&self) -> impl ExactSizeIterator<Item = &str> {
        self.skills.iter().map(|(text, ..)| text.as_str())
    }

    /// Places of the skills that each graph knows.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&str, Vec<u32>)> {
        let known = |side: &Side| {
            let places = side.texts.iter().enumerate().filter(|(_, texts)| !texts.is_empty());
            places.map(|(place, _)| place as u32).collect()
        };
        self.graphs.iter().map(move |(graph, side)| (graph.as_str(), known(side)))
    }

    /// Has each drawn skill bring others.
    pub(crate) fn bring(&mut self, neighbours: Neighbours) {
        self.neighbours = neighbours;
    }

    /// What each skill brings.
    pub(crate) fn brought(&self) -> &Neighbours {
        &self.neighbours
    }

    /// An order of skills, with what each of them brings behind it; what is brought brings nothing, else a batch would wander off
    /// along a chain.
    fn with_neighbours(&self, graph: &str, order: Vec<u32>) -> Vec<u32> {
        let Some(neighbours) = self.neighbours.get(graph) else { return order };
        let (mut all, mut seen) = (Vec::with_capacity(order.len()), HashSet::new());
        for skill in order {
            if seen.insert(skill) {
                all.push(skill);
                all.extend(neighbours[skill as usize].iter().filter(|other| seen.insert(**other)));
            }
        }
        all
    }

    fn generator(&self, purpose: &str, number: u64) -> ChaCha8Rng {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.update(purpose.as_bytes());
        ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
    }

    /// The skills that a step begins with.
    fn base(&self, step: u64) -> Vec<u32> {
        if self.draw == Draw::Edges {
            let mut generator = self.generator("edges", step);
            let mut ends: Vec<u32> = Vec::new();
            for side in self.graphs.values() {
                ends.extend(
                    side.texts
                        .iter()
                        .enumerate()
                        .flat_map(|(skill, texts)| std::iter::repeat_n(skill as u32, texts.len())),
                );
            }
            let mut seen = HashSet::new();
            let mut drawn = Vec::with_capacity(self.batch);
            // Repeats are drawn again, but not for ever: a graph may have few skills.
            for _ in 0..self.batch * 20 {
                let skill = ends[generator.random_range(0..ends.len())];
                if drawn.len() < self.batch && seen.insert(skill) {
                    drawn.push(skill);
                }
            }
            return drawn;
        }
        // Shares below 1 leave skills out of an epoch, so that one of them is shorter than `epoch` says: the order goes round.
        let epoch = step / self.epoch();
        let mut generator = self.generator("epoch", epoch);
        let mut order: Vec<u32> = Vec::with_capacity(self.skills.len());
        for (place, (_, _, share)) in self.skills.iter().enumerate() {
            if generator.random::<f64>() < *share {
                order.push(place as u32);
            }
        }
        order.shuffle(&mut generator);
        let start = (step % self.epoch()) as usize * self.batch;
        let count = self.batch.min(order.len());
        (0..count).map(|offset| order[(start + offset) % order.len()]).collect()
    }

    /// The batch of a step.
    pub fn draw(&self, step: u64) -> Drawn {
        let mut generator = self.generator("step", step);
        let base = self.base(step);
        let mut texts: Vec<String> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut place = |text: &str| {
            *places.entry(text.to_string()).or_insert_with(|| {
                texts.push(text.to_string());
                texts.len() - 1
            })
        };
        let mut graphs = Vec::with_capacity(self.graphs.len());
        for (graph, side) in &self.graphs {
            // Skills of the base that the graph knows, then others that it knows, until there are enough: also where two of the base
            // cannot stand in one batch.
            let mut order: Vec<u32> = base.clone();
            let missing = side
                .batch
                .saturating_sub(base.iter().filter(|skill| !side.texts[**skill as usize].is_empty()).count());
            let mut others: Vec<u32> = (0..self.skills.len() as u32)
                .filter(|skill| !side.texts[*skill as usize].is_empty())
                .filter(|skill| generator.random::<f64>() < self.skills[*skill as usize].2)
                .collect();
            let (few, _) = others.partial_shuffle(&mut generator, 2 * missing + side.batch);
            order.extend_from_slice(few);
            let (mut skills, mut items) = (Vec::new(), Vec::new());
            let (mut seen_skills, mut seen_texts) = (HashSet::new(), HashSet::new());
            for skill in self.with_neighbours(graph, order) {
                let linked = &side.texts[skill as usize];
                if skills.len() == side.batch || linked.is_empty() {
                    continue;
                }
                let text = linked[generator.random_range(0..linked.len())];
                let folded = &self.folded[skill as usize];
                // Two skills of one text, or one text of two skills: the second is drawn another time.
                if seen_skills.contains(folded) || seen_texts.contains(&text) {
                    continue;
                }
                seen_skills.insert(folded.clone());
                seen_texts.insert(text);
                skills.push(skill);
                items.push(text);
            }
            graphs.push(self.finish(graph, (skills, items), &mut place, &mut generator));
        }
        let first_skills = base.iter().take(5).map(|skill| self.skills[*skill as usize].1.clone()).collect();
        Drawn { texts, graphs, first_skills }
    }

    /// Joins sentences, and finds all links of a graph's draw.
    fn finish(
        &self,
        graph: &str,
        (skills, items): (Vec<u32>, Vec<u32>),
        place: &mut impl FnMut(&str) -> usize,
        generator: &mut ChaCha8Rng,
    ) -> GraphDraw {
        let side = &self.graphs[graph];
        let rows: HashMap<u32, usize> = skills.iter().enumerate().map(|(row, skill)| (*skill, row)).collect();
        let mut columns = vec![BTreeSet::new(); skills.len()];
        let mut places = Vec::with_capacity(items.len());
        for (column, (skill, item)) in skills.iter().zip(&items).enumerate() {
            let mut text = self.texts[*item as usize].clone();
            let mut linked = side.skills[item].clone();
            if side.sentences && generator.random::<f64>() < self.join {
                let other = side.all[generator.random_range(0..side.all.len())];
                let first = generator.random::<bool>();
                // A sentence that is linked to the skill itself would change nothing.
                if !side.skills[&other].contains(skill) && other != *item {
                    let other_text = &self.texts[other as usize];
                    text =
                        if first { format!("{other_text} {text}") } else { format!("{text} {other_text}") };
                    // The joined text speaks of the other sentence's skills too.
                    linked.extend(&side.skills[&other]);
                }
            }
            for row in linked.iter().filter_map(|skill| rows.get(skill)) {
                columns[*row].insert(column as u32);
            }
            places.push(place(&text));
        }
        let columns: Vec<Vec<u32>> =
            columns.into_iter().map(|columns| columns.into_iter().collect()).collect();
        let count = places.len();
        let skills = skills.iter().map(|skill| place(&self.skills[*skill as usize].0)).collect();
        GraphDraw { graph: graph.into(), skills, texts: places, links: Links::new(columns, count) }
    }
}

impl GraphDraw {
    /// Its part of a step's loss.
    pub fn task(&self, options: &GraphOptions) -> GraphTask {
        GraphTask {
            skills: self.skills.clone(),
            items: self.texts.clone(),
            links: self.links.clone(),
            weight: options.weight,
            temperature: options.temperature,
            margin: None,
            teacher: None,
        }
    }
}

impl Drawn {
    /// Identifies the batch.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in &self.texts {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for graph in &self.graphs {
            hasher.update(graph.graph.as_bytes());
            hasher.update(format!("{:?}{:?}{:?}", graph.skills, graph.texts, graph.links.columns).as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use uwe_graph::Provenance;

    fn edge(graph: Graph, skill: usize, text: &str, (source, part): (&str, Part)) -> Edge {
        Edge {
            graph,
            skill: format!("skill {skill}"),
            skill_id: format!("s:{skill}"),
            text: text.into(),
            source: source.into(),
            weight: 1.0,
            provenance: Provenance::Real,
            part,
        }
    }

    /// Forty skills; each has titles that it shares with the next ones, a sentence of its own, and a held-out title.
    fn edges() -> Vec<Edge> {
        let mut edges = Vec::new();
        for skill in 0..40 {
            for title in 0..3 {
                let title = format!("title {}", (skill + title) % 40);
                edges.push(edge(Graph::Job, skill, &title, ("titles", Part::Train)));
            }
            edges.push(edge(Graph::Job, skill, &format!("held out {skill}"), ("titles", Part::Val)));
            edges.push(edge(Graph::Job, skill, &format!("unwanted {skill}"), ("noise", Part::Train)));
            edges.push(edge(Graph::Sentence, skill, &format!("sentence {skill}"), ("texts", Part::Train)));
        }
        edges
    }

    fn recipe() -> Recipe {
        let text = "batch = 16\njoin_sentences = 0.5\n[graphs.job]\nweight = 1.0\ntemperature = 0.1\n[graphs.sentence]\n\
                    weight = 1.0\ntemperature = 0.1\nbatch = 8\n[sources]\nnoise = 0.0\n";
        Recipe::parse(text, "r.toml").unwrap()
    }

    #[test]
    fn a_draw_has_every_link_and_no_text_twice() {
        let edges = edges();
        let sampler = Sampler::new(&edges, &recipe()).unwrap();
        let linked: HashSet<(&str, &str)> =
            edges.iter().map(|edge| (&edge.skill[..], &edge.text[..])).collect();
        let mut joined = 0;
        for step in 0..30 {
            let drawn = sampler.draw(step);
            assert_eq!(drawn, sampler.draw(step), "a step is drawn the same each time");
            for graph in &drawn.graphs {
                assert_eq!(graph.skills.len(), if graph.graph == "job" { 16 } else { 8 });
                for side in [&graph.skills, &graph.texts] {
                    assert_eq!(side.iter().collect::<HashSet<_>>().len(), side.len(), "a text stands twice");
                }
                for (row, skill) in graph.skills.iter().enumerate() {
                    for (column, text) in graph.texts.iter().enumerate() {
                        let text = &drawn.texts[*text];
                        assert!(!text.contains("held out") && !text.contains("unwanted"), "{text}");
                        // A joined text is linked to what either of its sentences is linked to.
                        let words: Vec<&str> = text.split(' ').collect();
                        joined += usize::from(words.len() > 2);
                        let is = words
                            .chunks(2)
                            .any(|part| linked.contains(&(&drawn.texts[*skill][..], &part.join(" ")[..])));
                        let found = graph.links.columns[row].contains(&(column as u32));
                        assert_eq!(found, is, "{} and {text}", drawn.texts[*skill]);
                        assert!(row != column || is, "a row and its column are not linked");
                    }
                }
            }
        }
        assert!(joined > 0);
        assert_ne!(sampler.draw(0), sampler.draw(1));
        let all: HashSet<String> = (0..sampler.epoch()).flat_map(|step| sampler.draw(step).texts).collect();
        // An epoch has every skill but those that could not stand beside others.
        assert!(all.iter().filter(|text| text.starts_with("skill")).count() >= 32);
    }

    #[test]
    fn a_drawn_skill_brings_its_neighbours() {
        let mut sampler = Sampler::new(&edges(), &recipe()).unwrap();
        // Skills in pairs: 0 with 1, 2 with 3.
        let pairs: Vec<Vec<u32>> = (0..40u32).map(|skill| vec![skill ^ 1]).collect();
        sampler.bring(Neighbours::from([("job".into(), pairs)]));
        let drawn = sampler.draw(3);
        let job = drawn.graphs.iter().find(|graph| graph.graph == "job").unwrap();
        let number = |place: &usize| drawn.texts[*place][6..].parse::<u32>().unwrap();
        let skills: HashSet<u32> = job.skills.iter().map(number).collect();
        let with_neighbour = skills.iter().filter(|skill| skills.contains(&(**skill ^ 1))).count();
        // A title of a neighbour may have been drawn already: then it stays away.
        assert!(with_neighbour >= 12, "{skills:?}");
        sampler.bring(Neighbours::new());
        assert_ne!(drawn, sampler.draw(3));
    }
}
