//! The report as Markdown: tables that can be pasted into a paper or a README.

use super::page::best_average;
use super::study::{Study, long_tail};
use crate::statistics::Interval;
use std::fmt::Write;

/// Markdown tables.
pub(super) fn markdown(study: &Study) -> String {
    let mut out = String::from("# WorkBench\n\n");
    for run in &study.runs {
        push(&mut out, &format!("- {}: {}", run.letter, cell(&run.name)));
    }
    push(
        &mut out,
        "\nMAP, RP@10 and MRR in percent, with the 95 % interval of a bootstrap over the queries. The best MAP is bold.\n",
    );
    for average in study.places() {
        push(&mut out, &format!("## Averages, {}, {}\n", average.split, average.language));
        push(&mut out, "| run | tasks | MAP | RP@10 | MRR | stands on |\n|---|---|---|---|---|---|");
        let found: Vec<_> = study.runs.iter().map(|run| run.averages(average)).collect();
        let best = best_average(&found);
        for (index, (run, found)) in study.runs.iter().zip(&found).enumerate() {
            let Some(found) = found else { continue };
            let tasks: Vec<&str> = found.tasks.iter().map(|task| task.task.title()).collect();
            push(
                &mut out,
                &format!(
                    "| {} | {} of 6 | {} | {} | {} | {} |",
                    run.letter,
                    tasks.len(),
                    percent(found.metric("map"), best == Some(index)),
                    percent(found.metric("rp@10"), false),
                    percent(found.metric("mrr"), false),
                    tasks.join(", ")
                ),
            );
        }
        out.push('\n');
    }
    for identity in &study.sets {
        push(&mut out, &format!("## {}\n", identity.key()));
        push(
            &mut out,
            "| run | MAP | RP@5 | RP@10 | MRR | head / middle / tail | ties |\n|---|---|---|---|---|---|---|",
        );
        let found: Vec<_> = study.runs.iter().map(|run| run.set(identity)).collect();
        let best = best(found.iter().map(|found| found.and_then(|set| set.metric("map"))));
        for (index, (run, found)) in study.runs.iter().zip(&found).enumerate() {
            let (Some(found), Some(queries)) = (found, run.queries(identity)) else { continue };
            let [head, middle, tail] = long_tail(queries).thirds.map(|value| value * 100.0);
            let plain = |metric: &str| {
                found.metric(metric).map_or_else(String::new, |value| format!("{:.2}", value.mean * 100.0))
            };
            push(
                &mut out,
                &format!(
                    "| {} | {} | {} | {} | {} | {head:.1} / {middle:.1} / {tail:.1} | {:.1} % |",
                    run.letter,
                    percent(found.metric("map"), best == Some(index)),
                    plain("rp@5"),
                    plain("rp@10"),
                    plain("mrr"),
                    found.tied * 100.0
                ),
            );
        }
        if let Some(set) = found.into_iter().flatten().next() {
            push(
                &mut out,
                &format!(
                    "\n{} queries, {} targets, {} relevant pairs.\n",
                    set.queries, set.targets, set.judgements
                ),
            );
        }
    }
    for comparison in study.comparisons.iter().flatten() {
        push(
            &mut out,
            &format!(
                "## {} compared with {}\n",
                cell(&super::study::system_name(&comparison.second)),
                cell(&super::study::system_name(&comparison.first))
            ),
        );
        push(
            &mut out,
            "| set | MAP before | after | difference (95 %) | p | better / equal / worse |\n|---|---|---|---|---|---|",
        );
        for set in &comparison.sets {
            let interval = set.difference.interval;
            let [better, equal, worse] = set.difference.better_equal_worse;
            push(
                &mut out,
                &format!(
                    "| {} | {:.2} | {:.2} | {:+.2} ({:+.2} to {:+.2}) | {:.4} | {better} / {equal} / {worse} |",
                    set.identity.key(),
                    set.first * 100.0,
                    set.second * 100.0,
                    interval.mean * 100.0,
                    interval.low * 100.0,
                    interval.high * 100.0,
                    set.difference.p_value
                ),
            );
        }
        out.push('\n');
    }
    push(
        &mut out,
        "Head, middle and tail are thirds of the relevant targets by how many queries they are relevant to; the figure is the mean precision at them. Ties: queries on which another target has the very score of a relevant one.",
    );
    out
}

fn push(out: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

/// A text that cannot end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Index of the greatest mean.
pub(super) fn best(values: impl Iterator<Item = Option<Interval>>) -> Option<usize> {
    values
        .enumerate()
        .filter_map(|(index, value)| Some((index, value?.mean)))
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        .map(|(index, _)| index)
}

fn percent(value: Option<Interval>, bold: bool) -> String {
    let Some(value) = value else { return String::new() };
    let mean = format!("{:.2}", value.mean * 100.0);
    let mean = if bold { format!("**{mean}**") } else { mean };
    format!("{mean} ({:.1}-{:.1})", value.low * 100.0, value.high * 100.0)
}
