#!/bin/sh
# django-oauth-toolkit: the grace period for a spent refresh token, with tokens that are stored hashed.
#
# REFRESH_TOKEN_GRACE_PERIOD_SECONDS has a refresh token that comes again in time answered with the
# pair that it was spent for. COMPLIANT_BCP_RFC9700_TOKEN_STORAGE stores tokens hashed, so that there
# is no pair left to give. That the two do not go together is said by `manage.py check --deploy`
# (oauth2_provider.E001), and by nothing that runs without being asked. A server that has both set
# starts, and answers:
#
#   stored   grace   the same refresh token a second time
#   plain      0 s   400 invalid_grant
#   plain     30 s   200, the same access token and the same refresh token
#   hashed     0 s   400 invalid_grant
#   hashed    30 s   500, with a page of HTML
#
# So a client whose first answer was lost, which is what the grace period is for, gets an error of the
# server's instead of its pair, and no reason to stop asking.
#
# Expected, and not seen: an error when the server starts, or 400 invalid_grant.
#
# Pinned: django-oauth-toolkit 3.4.1, Django 5.2.19.
#
# Needs python3 with venv. Runs without tower-refresh, in a folder of its own. Fails if the behaviour is
# another one by now.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q django-oauth-toolkit==3.4.1 Django==5.2.19

cat >"$folder/server.py" <<'PYTHON'
import logging, sys, warnings

import django
from django.conf import settings

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
stored, grace = sys.argv[1], int(sys.argv[2])
settings.configure(
    SECRET_KEY="not a secret", USE_TZ=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    OAUTH2_PROVIDER={
        "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": stored == "hashed",
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": grace,
    },
)
django.setup()

from django.core import checks
from django.core.management import call_command
from django.test import Client
from django.urls import include, path

urlpatterns = [path("o/", include("oauth2_provider.urls"))]
assert not [found for found in checks.run_checks() if found.level >= checks.ERROR]
call_command("migrate", verbosity=0)

from django.contrib.auth.models import User
from oauth2_provider.models import Application

user = User.objects.create_user("user", password="password")
Application.objects.create(
    name="app", user=user, client_id="client", client_secret="secret",
    client_type="confidential", authorization_grant_type="password",
)
web = Client(raise_request_exception=False)


def ask(**form):
    return web.post("/o/token/", dict(form, client_id="client", client_secret="secret"))


first = ask(grant_type="password", username="user", password="password").json()
redeem = lambda: ask(grant_type="refresh_token", refresh_token=first["refresh_token"])
pair, again = redeem().json(), redeem()
kind = again["content-type"].split(";")[0]
said = again.json() if kind == "application/json" else {}
same = [name for name in ("access_token", "refresh_token") if said.get(name) == pair[name]]
print(stored, grace, again.status_code, said.get("error", same or kind))
PYTHON

seen=$(for row in "plain 0" "plain 30" "hashed 0" "hashed 30"; do
    # shellcheck disable=SC2086
    "$folder/venv/bin/python" "$folder/server.py" $row
done)
expected="plain 0 400 invalid_grant
plain 30 200 ['access_token', 'refresh_token']
hashed 0 400 invalid_grant
hashed 30 500 text/html"
printf '%s\n' "$seen"
[ "$seen" = "$expected" ]
