//! Pages of another site, and of another port of the host, which is the same site to a browser.

use axum::{
    Router,
    http::{Method, StatusCode},
    response::Html,
    routing::get,
};
use testing::sessions::World;

use super::{
    app::{App, Fate, elsewhere, page},
    browser::Browser,
    until,
};

/// How many posts to this path were refused as forged.
fn forged(app: &App, path: &str) -> usize {
    let refused = Fate::Answered(StatusCode::FORBIDDEN);
    let is_one = |seen: &&super::app::Seen| {
        seen.method == Method::POST && seen.path == path && seen.fate == refused
    };
    app.seen().iter().filter(is_one).count()
}

/// By a form, and by every kind of fetch that needs nobody's leave.
#[tokio::test]
async fn pages_of_another_site_or_port_cannot_post_and_read_nothing() {
    let world = World::new();
    let app = App::start(&world).await;
    let router = Router::new().route("/", get(Html(page("a stranger", ""))));
    let other_site = elsewhere(router).await;
    let other_port = other_site.replace("127.0.0.1", "localhost");
    let browser = Browser::start().await;
    let (ours, theirs) = (browser.first(), browser.tab().await);
    ours.open(&app.url("/callback")).await;
    let mut count = 0;
    for origin in [&other_site, &other_port] {
        theirs.open(origin).await;
        theirs.shows("a stranger").await;
        for mode in ["no-cors", "cors"] {
            let script = format!(
                "try {{
                     const response = await fetch('{}', {{
                         method: 'POST', mode: '{mode}', credentials: 'include', body: 'a=b',
                         headers: {{ 'content-type': 'text/plain' }} }});
                     return response.type + response.status + await response.text();
                 }} catch (error) {{ return error.name }}",
                app.url("/sign_out")
            );
            let read = theirs.wait(&script).await;
            assert!(read == "opaque0" || read == "TypeError", "{origin} {mode}: {read}");
            count += 1;
            until("it is refused", async || forged(&app, "/sign_out") == count).await;
        }
        for mode in ["no-cors", "cors"] {
            let script = format!(
                "try {{
                     const response = await fetch('{}', {{ mode: '{mode}', credentials: 'include' }});
                     return response.type + response.status + await response.text();
                 }} catch (error) {{ return error.name }}",
                app.url("/me")
            );
            let read = theirs.wait(&script).await;
            assert!(read == "opaque0" || read == "TypeError", "{origin} {mode}: {read}");
        }
        let form = format!(
            "const form = document.createElement('form');
             form.method = 'post';
             form.action = '{}';
             document.body.append(form);
             form.submit()",
            app.url("/sign_out")
        );
        theirs.run(&form).await;
        count += 1;
        until("the form is refused", async || forged(&app, "/sign_out") == count).await;
        assert_eq!(ours.status("GET", "/me").await, 200, "still signed in");
    }
    assert_eq!(world.server.alive(), 1);
    // The port's own requests have the cookie: it is the check that refuses them, and nothing else.
    assert_eq!(app.count("/me", Fate::Answered(StatusCode::OK)), 2 + 2);
}
