//! The timeline as a page of its own, to be shown to others.

use std::{fmt::Write, time::Duration};

/// What became of one request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Story {
    pub(crate) sent: Option<Duration>,
    pub(crate) refused: Option<Duration>,
    pub(crate) accepted: Option<Duration>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;

/// Each request is a bar: on its way, held while the token is renewed, and sent again. The refresh is a
/// line through all of them.
pub(crate) fn page(stories: &[Story], refreshed: &[Duration], line: &str) -> String {
    let moments = stories.iter().flat_map(|it| [it.sent, it.refused, it.accepted]).flatten();
    let end = moments.chain(refreshed.iter().copied()).max().unwrap_or_default();
    let x = |at: Duration| at.as_secs_f64() / end.as_secs_f64().max(f64::MIN_POSITIVE) * WIDTH;
    let step = HEIGHT / stories.len().max(1) as f64;
    let mut bars = String::new();
    for (number, story) in stories.iter().enumerate() {
        let renewed = refreshed.iter().find(|at| story.refused.is_some_and(|it| it <= **at));
        let parts = [
            ("way", story.sent, story.refused),
            ("held", story.refused, renewed.copied().or(story.refused)),
            ("again", renewed.copied().or(story.refused), story.accepted),
        ];
        for (class, from, to) in parts {
            if let (Some(from), Some(to)) = (from, to) {
                let (left, right) = (x(from), x(to));
                let _ = write!(
                    bars,
                    "<rect class='{class}' x='{left:.1}' y='{:.1}' width='{:.1}' height='{:.1}'/>",
                    number as f64 * step,
                    (right - left).max(0.5),
                    step * 0.8,
                );
            }
        }
    }
    for at in refreshed {
        let _ =
            write!(bars, "<line class='refresh' x1='{0:.1}' x2='{0:.1}' y2='{HEIGHT}'/>", x(*at));
    }
    let (count, millis) = (stories.len(), end.as_millis());
    format!(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>{count} requests, one refresh</title>
<style>
  :root {{ color-scheme: light dark; --way: light-dark(#56a4d8, #56b4e9);
    --held: light-dark(#f2d49b, #6b5526); --again: light-dark(#00875f, #2bbf92);
    --refresh: light-dark(#d99400, #f0b429) }}
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
  svg {{ width: 100%; height: auto }}
  .way {{ fill: var(--way) }} .held {{ fill: var(--held) }} .again {{ fill: var(--again) }}
  .refresh {{ stroke: var(--refresh); stroke-width: 3 }}
  b {{ display: inline-block; width: .9rem; height: .9rem; border-radius: .2rem }}
  span {{ margin-right: 1.2rem }} code {{ overflow-wrap: anywhere }}
</style>
<h1>{count} requests with a token that has just expired</h1>
<p><span><b style='background: var(--way)'></b> on its way to a 401</span>
<span><b style='background: var(--held)'></b> held</span>
<span><b style='background: var(--refresh)'></b> the refresh</span>
<span><b style='background: var(--again)'></b> sent again, with its body: 200</span></p>
<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='One bar a request, over {millis} ms'>{bars}</svg>
<p>0 to {millis} ms. <code>{line}</code></p>
</html>
"
    )
}
