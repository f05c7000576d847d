"""Boards for Grafana, rules and alerts for Prometheus: written as values here, rendered into files elsewhere.

Reading order: `overview` (READ FIRST: a board is rows of panels, a panel is queries), `freshness`, `decisions`, `ads`;
`alerts` (what somebody is woken for) and `objectives` (what burns a budget). Then how they become files: `promql` (the
rooms in a query), `panels` (what there is to draw), `grafana`, `rules`; and how they are looked at: `prometheus`
(asking a server), `check` (does every query return data), `pictures` (what a board shows, drawn without Grafana).

    python -m deploy.boards                                        # write deploy/grafana and deploy/prometheus
    python -m deploy.boards --selector 'job="media/recs"' --out F  # another installation's, into F
    python -m deploy.boards check http://127.0.0.1:9090            # every query, and how many series it returns
    python -m deploy.boards draw http://127.0.0.1:9090 FOLDER      # a picture of each board
"""

from deploy.boards import ads, decisions, freshness, overview

BOARDS = (overview.BOARD, freshness.BOARD, decisions.BOARD, ads.BOARD)
