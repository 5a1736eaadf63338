//! A training as one web page: losses, learning rate, gradient and validation over the steps.

use crate::error::{Error, Result};
use crate::trainer::{Event, StepLog, ValidationLog, read_log};
use maud::{Markup, html};
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use workbench::page::{colour, document, draw, figure, mesh, swatch};

/// Points of a line: more could not be told apart.
const POINTS: usize = 300;

/// A line with its name.
type Line = (String, Vec<(f64, f64)>);

/// Draws the log of a training's folder.
///
/// # Errors
/// [`Error::Io`] when there is no log; [`Error::Run`] when it is empty.
pub fn report(folder: &Path) -> Result<String> {
    let (mut steps, mut validations): (Vec<StepLog>, Vec<ValidationLog>) = (Vec::new(), Vec::new());
    for event in read_log(&folder.join("log.jsonl"))? {
        match event {
            Event::Step(step) => steps.push(step),
            Event::Validation(validation) => validations.push(validation),
        }
    }
    if steps.is_empty() && validations.is_empty() {
        return Err(Error::Run { path: folder.into(), problem: "has no step in its log".into() });
    }
    let recipe = std::fs::read_to_string(folder.join("recipe.toml")).unwrap_or_default();
    let one = |name: &str, value: &dyn Fn(&StepLog) -> f64| -> Vec<Line> {
        vec![(name.to_string(), steps.iter().map(|step| (step.step as f64, value(step))).collect())]
    };
    let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
    let texts: usize = steps.iter().map(|step| step.texts).sum();
    let content = html! {
        p.note {
            (steps.len()) " steps in " (format!("{:.0}", seconds / 60.0)) " minutes: "
            (format!("{:.1}", seconds / steps.len().max(1) as f64)) " s a step, "
            (format!("{:.0}", texts as f64 / seconds.max(1e-9))) " texts a second."
        }
        @if !validations.is_empty() { (table(&validations)) }
        h2 { "Curves over the steps" }
        div.charts {
            @if validations.len() > 1 { (lines("Validation: points of MAP gained", &gains(&validations))) }
            (lines("Loss by graph", &graph_lines(&steps)))
            (lines("Loss, weighted sum", &one("loss", &|step| step.loss)))
            (lines("Learning rate, millionths", &one("rate", &|step| step.learning_rate * 1e6)))
            (lines("Length of the gradient", &one("length", &|step| step.gradient_norm)))
            (lines("Seconds a step", &one("seconds", &|step| step.seconds)))
        }
        h2 { "Recipe" }
        pre { (recipe) }
    };
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(document(&format!("Training {name}"), &content))
}

fn table(validations: &[ValidationLog]) -> Markup {
    let best = validations.iter().map(|v| v.scored.mean).fold(0.0, f64::max);
    let sets: Vec<&String> = validations.iter().flat_map(|v| v.scored.sets.keys()).collect();
    let mut names: Vec<&String> = sets;
    names.sort();
    names.dedup();
    html! {
        h2 { "Validation, MAP" }
        div.wide { table {
            thead { tr {
                th scope="col" { "after step" } th scope="col" { "mean" }
                @for name in &names { th scope="col" { (name) } }
            } }
            tbody { @for validation in validations { tr {
                th scope="row" { (validation.validated) }
                td { @let mean = format!("{:.2}", validation.scored.mean * 100.0);
                     @if validation.scored.mean == best { b { (mean) } } @else { (mean) } }
                @for name in &names {
                    td { @if let Some(value) = validation.scored.sets.get(*name) { (format!("{:.2}", value * 100.0)) } }
                }
            } } }
        } }
    }
}

/// What each set has gained since the first validation; their own values lie too far apart for one chart.
fn gains(validations: &[ValidationLog]) -> Vec<Line> {
    let first = validations.first().map(|validation| &validation.scored);
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for validation in validations {
        let at = validation.validated as f64;
        lines
            .entry(" mean".into())
            .or_default()
            .push((at, gained(validation.scored.mean, first.map(|first| first.mean))));
        for (name, value) in &validation.scored.sets {
            let before = first.and_then(|first| first.sets.get(name).copied());
            lines.entry(name.clone()).or_default().push((at, gained(*value, before)));
        }
    }
    lines.into_iter().collect()
}

fn gained(value: f64, before: Option<f64>) -> f64 {
    (value - before.unwrap_or(value)) * 100.0
}

fn graph_lines(steps: &[StepLog]) -> Vec<Line> {
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for step in steps {
        for (name, value) in &step.graphs {
            lines.entry(name.clone()).or_default().push((step.step as f64, *value));
        }
    }
    lines.into_iter().collect()
}

/// Means of neighbouring points, so that there are few enough.
fn thinned(line: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = line.len().div_ceil(POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    line.chunks(each).map(mean).collect()
}

fn lines(title: &str, lines: &[Line]) -> Markup {
    let drawn: Vec<Vec<(f64, f64)>> = lines.iter().map(|(_, line)| thinned(line)).collect();
    let points = || drawn.iter().flatten();
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max).max(1e-6) * 1.06;
    let bottom = points().map(|point| point.1).fold(top, f64::min).min(0.0);
    let svg = draw(210, "values over the steps, a line each", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(42)
            .build_cartesian_2d(0f64..right, bottom..top)?;
        mesh(&mut chart)
            .x_labels(6)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| {
                if top < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
            })
            .draw()?;
        for (series, line) in drawn.iter().enumerate() {
            chart.draw_series(LineSeries::new(line.iter().copied(), colour(series).stroke_width(2)))?;
        }
        Ok(())
    });
    html! {
        div {
            (figure(title, "", svg))
            @if lines.len() > 1 { p.note { @for (series, (name, _)) in lines.iter().enumerate() { span.name { (swatch(series)) (name) } " " } } }
        }
    }
}
