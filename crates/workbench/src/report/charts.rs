//! The benchmark's charts.

use super::study::RANK_CLASSES;
use crate::page::{INK, SERIES, WIDTH, colour, draw, mesh, text};
use plotters::prelude::*;

/// A bar a run: letter, mean in percent, interval as a line. `values` has `None` for a run without the set.
pub(super) fn bars(letters: &[String], values: &[Option<crate::Interval>]) -> String {
    const ROW: i32 = 22;
    let height = values.len() as i32 * ROW + 6;
    let longest = values.iter().flatten().map(|value| value.high).fold(0.0, f64::max).max(0.01);
    let (left, right) = (26.0, f64::from(WIDTH) - 54.0);
    let place = |value: f64| (left + (right - left) * value / longest) as i32;
    draw(height as u32, "means with 95 % intervals, a bar for each run", |area| {
        for (run, value) in values.iter().enumerate() {
            let top = run as i32 * ROW + 4;
            area.draw(&Text::new(letters[run].clone(), (4, top + 2), text(13)))?;
            let Some(value) = value else {
                area.draw(&Text::new("not measured", (left as i32, top + 2), text(12)))?;
                continue;
            };
            let (start, end, bottom) = (left as i32, place(value.mean), top + ROW - 7);
            area.draw(&Rectangle::new([(start, top), (end, bottom)], colour(run).filled()))?;
            let middle = (top + bottom) / 2;
            let (low, high) = (place(value.low), place(value.high));
            area.draw(&PathElement::new(vec![(low, middle), (high, middle)], INK.stroke_width(1)))?;
            for end in [low, high] {
                area.draw(&PathElement::new(
                    vec![(end, middle - 4), (end, middle + 4)],
                    INK.stroke_width(1),
                ))?;
            }
            let label = format!("{:.1}", value.mean * 100.0);
            area.draw(&Text::new(label, (high.max(end) + 6, top + 2), text(13)))?;
        }
        Ok(())
    })
}

/// A line a run over a logarithmic axis of frequencies; points are `(frequency, share)`.
pub(super) fn curves(runs: &[Option<Vec<(f64, f64)>>]) -> String {
    let points = || runs.iter().flatten().flatten();
    let most = points().map(|point| point.0).fold(2.0, f64::max);
    let highest = (points().map(|point| point.1).fold(0.0, f64::max) * 1.08).clamp(0.01, 1.0);
    draw(210, "precision by how often a target is relevant, a line for each run", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(38)
            .build_cartesian_2d((0.9f64..most * 1.2).log_scale(), 0f64..highest)?;
        mesh(&mut chart)
            .x_labels(6)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| format!("{:.0} %", value * 100.0))
            .draw()?;
        for (run, line) in runs.iter().enumerate() {
            let Some(line) = line else { continue };
            chart.draw_series(LineSeries::new(line.iter().copied(), colour(run).stroke_width(2)))?;
            chart.draw_series(line.iter().map(|point| Circle::new(*point, 3, colour(run).filled())))?;
        }
        Ok(())
    })
}

/// Bars side by side: share of the queries by class of their first relevant rank.
pub(super) fn histogram(runs: &[Option<[f64; 8]>]) -> String {
    let highest = runs.iter().flatten().flatten().copied().fold(0.05, f64::max) * 1.05;
    let shown: Vec<(usize, &[f64; 8])> =
        runs.iter().enumerate().filter_map(|(run, shares)| Some((run, shares.as_ref()?))).collect();
    draw(200, "share of the queries by rank of the first relevant target", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(38)
            .build_cartesian_2d(0f64..8f64, 0f64..highest)?;
        mesh(&mut chart)
            .disable_x_mesh()
            .x_labels(0)
            .y_label_formatter(&|value| format!("{:.0} %", value * 100.0))
            .draw()?;
        let width = 0.86 / shown.len().max(1) as f64;
        for (slot, (run, shares)) in shown.iter().enumerate() {
            chart.draw_series(shares.iter().enumerate().map(|(class, share)| {
                let start = class as f64 + 0.07 + slot as f64 * width;
                Rectangle::new([(start, 0.0), (start + width, *share)], colour(*run).filled())
            }))?;
        }
        let plot = chart.plotting_area().get_pixel_range();
        let step = f64::from(plot.0.end - plot.0.start) / 8.0;
        for (class, (_, name)) in RANK_CLASSES.iter().enumerate() {
            let middle = f64::from(plot.0.start) + (class as f64 + 0.5) * step;
            let half = name.len() as f64 * 2.8;
            area.draw(&Text::new(*name, ((middle - half) as i32, plot.1.end + 6), text(11)))?;
        }
        Ok(())
    })
}

/// All changes of a metric from the worst to the best, as an area above and below zero.
pub(super) fn differences(changes: &[f64]) -> String {
    let reach = changes.iter().map(|change| change.abs()).fold(0.05, f64::max);
    // A chart has fewer columns than a set may have queries: each takes the middle one of its share.
    let columns = changes.len().clamp(1, 300);
    let sampled: Vec<f64> = (0..columns)
        .filter_map(|i| changes.get((2 * i + 1) * changes.len() / (2 * columns)))
        .copied()
        .collect();
    draw(180, "change of average precision, query by query, sorted", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(4)
            .y_label_area_size(42)
            .build_cartesian_2d(0f64..columns as f64, -reach..reach)?;
        mesh(&mut chart)
            .disable_x_mesh()
            .x_labels(0)
            .y_label_formatter(&|value| format!("{:+.0}", value * 100.0))
            .draw()?;
        chart.draw_series(sampled.iter().enumerate().map(|(place, change)| {
            let colour = if *change < 0.0 { SERIES[1] } else { SERIES[0] };
            Rectangle::new([(place as f64, 0.0), (place as f64 + 1.0, *change)], colour.filled())
        }))?;
        Ok(())
    })
}
