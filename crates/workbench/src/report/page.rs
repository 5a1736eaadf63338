//! The report as one web page that needs nothing else: styles and charts are inside it.

use super::charts;
use super::study::{self, Example, Study, StudyRun};
use super::text::best;
use crate::page::{document, figure, swatch};
use crate::results::Averages;
use crate::set::{Identity, Task};
use crate::statistics::Interval;
use maud::{Markup, html};

/// Worst queries of each set.
const EXAMPLES: usize = 6;

pub(super) fn html(study: &Study) -> String {
    let content = html! {
        (legend(study))
        (averages(study))
        (table(study))
        (transfer(study))
        (bars(study))
        (tails(study))
        (ranks(study))
        (differences(study))
        (worst(study))
        (provenance(study))
    };
    document("WorkBench report", &content)
}

fn legend(study: &Study) -> Markup {
    html! {
        ul.legend {
            @for (index, run) in study.runs.iter().enumerate() {
                li { (swatch(index)) b { (run.letter) } " " (run.name) }
            }
        }
        @if !study.left_out.is_empty() {
            p.note { "Left out, since an earlier run has measured a set of this name on other data: " (study.left_out.join(", ")) "." }
        }
    }
}

fn value(interval: Option<Interval>, bold: bool) -> Markup {
    html! {
        @if let Some(interval) = interval {
            @let mean = format!("{:.1}", interval.mean * 100.0);
            @if bold { b { (mean) } } @else { (mean) }
            span.interval { (format!("{:.1}–{:.1}", interval.low * 100.0, interval.high * 100.0)) }
        } @else {
            span.absent { "–" }
        }
    }
}

fn averages(study: &Study) -> Markup {
    html! {
        @for place in study.places() {
            @let found: Vec<Option<&Averages>> = study.runs.iter().map(|run| run.averages(place)).collect();
            @let mut tasks: Vec<_> = found.iter().flatten().flat_map(|a| a.tasks.iter().map(|t| t.task.clone())).collect();
            @let () = { tasks.sort(); tasks.dedup(); };
            h2 { "MAP by task, " (place.split) ", " (place.language) }
            div.wide {
                table {
                    thead { tr {
                        th.run scope="col" { "run" }
                        @for task in &tasks { th scope="col" { (task.title()) } }
                        th scope="col" { "average" }
                    } }
                    tbody {
                        @let best_average = best_average(&found);
                        @for (index, average) in found.iter().enumerate() {
                            @if let Some(average) = average {
                                tr {
                                    th scope="row" { (swatch(index)) (study.runs[index].letter) }
                                    @for task in &tasks {
                                        @let of = |a: &Option<&Averages>| a.and_then(|a| a.tasks.iter().find(|t| t.task == *task)).and_then(|t| t.metric("map"));
                                        td { (value(of(&found[index]), best(found.iter().map(of)) == Some(index))) }
                                    }
                                    td {
                                        (value(average.metric("map"), best_average == Some(index)))
                                        span.interval { (average.tasks.len()) " tasks of 6" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @let absent = absent_everywhere(&found);
            @if !absent.is_empty() {
                p.note { "Not measured by any run, and so in no average: " (absent.join(", ")) "." }
            }
        }
    }
}

/// Titles of the tasks that no run has measured.
fn absent_everywhere(found: &[Option<&Averages>]) -> Vec<&'static str> {
    let measured =
        |task: &Task| found.iter().flatten().any(|average| average.tasks.iter().any(|t| t.task == *task));
    Task::WORKBENCH.iter().filter(|task| !measured(task)).map(Task::title).collect()
}

/// The run with the best average; none when the averages stand on different sets.
pub(super) fn best_average(found: &[Option<&Averages>]) -> Option<usize> {
    let tasks = |average: &Averages| {
        average.tasks.iter().map(|task| (task.task.clone(), task.sets.clone())).collect::<Vec<_>>()
    };
    let mut all = found.iter().flatten().map(|average| tasks(average));
    let first = all.next()?;
    all.all(|other| other == first)
        .then(|| best(found.iter().map(|average| average.and_then(|average| average.metric("map")))))?
}

fn table(study: &Study) -> Markup {
    const METRICS: [(&str, &str); 4] = [("map", "MAP"), ("rp@5", "RP@5"), ("rp@10", "RP@10"), ("mrr", "MRR")];
    html! {
        h2 { "All sets" }
        p.note {
            "Means over the queries in percent; small: 95 % interval of a bootstrap. Ties: share of the queries on "
            "which another target has the very score of a relevant one, so that the order of the list decides."
        }
        div.wide {
            table {
                thead { tr {
                    th scope="col" { "set" } th.run scope="col" { "run" }
                    @for (_, title) in METRICS { th scope="col" { (title) } }
                    th scope="col" { "ties" }
                } }
                @for identity in &study.sets {
                    tbody {
                        @let found: Vec<_> = study.runs.iter().map(|run| run.set(identity)).collect();
                        @let rows = found.iter().flatten().count();
                        @let first = found.iter().position(Option::is_some);
                        @for (index, set) in found.iter().enumerate() {
                            @if let Some(set) = set {
                                tr {
                                    @if Some(index) == first {
                                        th scope="rowgroup" rowspan=(rows) {
                                            (identity.name)
                                            span.interval { (identity.split) " " (identity.language) ", " (set.queries) " × " (set.targets) }
                                        }
                                    }
                                    td.run { (swatch(index)) (study.runs[index].letter) }
                                    @for (name, _) in METRICS {
                                        td { (value(set.metric(name), best(found.iter().map(|s| s.and_then(|s| s.metric(name)))) == Some(index))) }
                                    }
                                    td { (format!("{:.0} %", set.tied * 100.0)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Runs by sets, coloured by the difference to the first run: for checkpoints, the transfer between tasks.
fn transfer(study: &Study) -> Markup {
    if study.runs.len() < 2 {
        return html! {};
    }
    let mean = |run: &StudyRun, identity: &Identity| Some(run.set(identity)?.metric("map")?.mean * 100.0);
    html! {
        h2 { "Transfer: MAP against run A" }
        p.note { "Each cell is the difference to run A on that set. With checkpoints trained on different graphs this shows what each graph gives to which task." }
        div.wide {
            table.heat {
                thead { tr { th scope="col" { "set" } @for run in &study.runs { th scope="col" { (run.letter) } } } }
                tbody {
                    @for identity in &study.sets {
                        tr {
                            th scope="row" { (identity.name) " " (identity.split) }
                            @for run in &study.runs {
                                @let found = mean(run, identity);
                                @match (found, mean(&study.runs[0], identity)) {
                                    (Some(found), Some(base)) => td style=(heat(found - base)) title=(format!("MAP {found:.2}")) { (format!("{:+.1}", found - base)) },
                                    _ => td { span.absent { "–" } },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Background of a difference in points: full colour from ten points on.
fn heat(difference: f64) -> String {
    let share = (difference.abs() / 10.0).min(1.0) * 70.0;
    let colour = if difference < 0.0 { "--less" } else { "--more" };
    format!("background:color-mix(in srgb, var({colour}) {share:.0}%, transparent)")
}

fn set_figure(identity: &Identity, svg: String) -> Markup {
    figure(&identity.name, &identity.split.to_string(), svg)
}

fn bars(study: &Study) -> Markup {
    let letters: Vec<String> = study.runs.iter().map(|run| run.letter.clone()).collect();
    html! {
        h2 { "MAP" }
        div.charts {
            @for identity in &study.sets {
                @let values: Vec<_> = study.runs.iter().map(|run| run.set(identity).and_then(|set| set.metric("map"))).collect();
                (set_figure(identity, charts::bars(&letters, &values)))
            }
        }
    }
}

fn tails(study: &Study) -> Markup {
    html! {
        h2 { "The long tail" }
        p.note {
            "Mean precision at the relevant targets, by the number of queries to which a target is relevant: rare targets "
            "on the left. In a set with one relevant target a query this is MAP."
        }
        div.charts {
            @for identity in &study.sets {
                @let tails: Vec<_> = study.runs.iter().map(|run| run.queries(identity).map(study::long_tail)).collect();
                @if tails.iter().flatten().any(|tail| tail.curve.len() > 1) {
                    @let lines: Vec<_> = tails.iter().map(|tail| tail.as_ref().map(|tail| tail.curve.iter().map(|point| (point.0, point.1)).collect())).collect();
                    (set_figure(identity, charts::curves(&lines)))
                }
            }
        }
        div.wide {
            table {
                thead { tr { th scope="col" { "set" } th.run scope="col" { "run" } th scope="col" { "head" } th scope="col" { "middle" } th scope="col" { "tail" } } }
                tbody {
                    @for identity in &study.sets {
                        @for (index, run) in study.runs.iter().enumerate() {
                            @if let Some(queries) = run.queries(identity) {
                                tr {
                                    th scope="row" { (identity.name) " " (identity.split) }
                                    td.run { (swatch(index)) (run.letter) }
                                    @for share in study::long_tail(queries).thirds { td { (format!("{:.1}", share * 100.0)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn ranks(study: &Study) -> Markup {
    html! {
        h2 { "Where the first relevant target stands" }
        div.charts {
            @for identity in &study.sets {
                @let shares: Vec<_> = study.runs.iter().map(|run| run.queries(identity).map(study::rank_shares)).collect();
                (set_figure(identity, charts::histogram(&shares)))
            }
        }
    }
}

fn examples(list: &[Example], change: bool) -> Markup {
    html! {
        div.examples {
            @for example in list {
                div.example {
                    p.query { (example.query) }
                    p {
                        span.interval { "rank " (example.rank) ", " @if change { (format!("{:+.1} points", example.value * 100.0)) } @else { (format!("AP {:.1}", example.value * 100.0)) } }
                    }
                    p {
                        "wanted: " (example.truth.0.join("; "))
                        @if example.truth.1 > example.truth.0.len() { " and " (example.truth.1 - example.truth.0.len()) " more" }
                    }
                    @if !example.above.is_empty() { p.above { "above it: " (example.above.join("; ")) } }
                }
            }
        }
    }
}

/// Query by query, when there are two runs.
fn differences(study: &Study) -> Markup {
    let ([first, second], Some(Some(comparison))) = (&study.runs[..], study.comparisons.first()) else {
        return html! {};
    };
    html! {
        h2 { "From A to B, query by query" }
        div.wide {
            table {
                thead { tr { th scope="col" { "set" } th scope="col" { "A" } th scope="col" { "B" } th scope="col" { "difference" } th scope="col" { "p" } th scope="col" { "better / equal / worse" } } }
                tbody {
                    @for set in &comparison.sets {
                        @let interval = set.difference.interval;
                        tr {
                            th scope="row" { (set.identity.name) " " (set.identity.split) }
                            td { (format!("{:.1}", set.first * 100.0)) }
                            td { (format!("{:.1}", set.second * 100.0)) }
                            td { (format!("{:+.2}", interval.mean * 100.0)) span.interval { (format!("{:+.2} to {:+.2}", interval.low * 100.0, interval.high * 100.0)) } }
                            td { (format!("{:.4}", set.difference.p_value)) }
                            td { (set.difference.better_equal_worse.map(|count| count.to_string()).join(" / ")) }
                        }
                    }
                }
            }
        }
        p.note { "Paired bootstrap interval; p of a paired randomisation test with 10,000 assignments." }
        div.charts {
            @for identity in &study.sets {
                @if let Some(changes) = study::changes(first, second, identity) {
                    (set_figure(identity, charts::differences(&changes.iter().map(|change| change.0).collect::<Vec<_>>())))
                }
            }
        }
        @for identity in &study.sets {
            @if let Some(changes) = study::changes(first, second, identity) {
                details {
                    summary { "What changed most: " (identity.name) " " (identity.split) }
                    h3 { "worse" }
                    (examples(&study::changed(second, identity, changes.iter().copied().take(EXAMPLES / 2)), true))
                    h3 { "better" }
                    (examples(&study::changed(second, identity, changes.iter().rev().copied().take(EXAMPLES / 2)), true))
                }
            }
        }
    }
}

fn worst(study: &Study) -> Markup {
    let focus = study.focus();
    html! {
        h2 { "The worst queries of run " (focus.letter) }
        @for identity in &study.sets {
            @let list = study::worst(focus, identity, EXAMPLES);
            @if !list.is_empty() {
                details {
                    summary { (identity.name) " " (identity.split) }
                    (examples(&list, false))
                }
            }
        }
    }
}

fn provenance(study: &Study) -> Markup {
    html! {
        h2 { "What was measured" }
        @for run in &study.runs {
            details {
                summary { b { (run.letter) } " " (run.name) }
                pre { (serde_json::to_string_pretty(&run.results.system).unwrap_or_default()) }
                p.note { "Seed " (run.results.seed) ", " (run.results.resamples) " resamples, written by " (run.results.written_by) "." }
                ul { @for set in &run.results.sets { li { code { (set.identity.key()) } " data " code { (set.data) } } } }
            }
        }
    }
}
