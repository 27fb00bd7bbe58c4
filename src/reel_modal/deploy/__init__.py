"""`python -m reel_modal.deploy`: look, try, publish in one step, and prove what is there.

`command` is the order of things; `plan` says what would be deployed, `preflight` tries it on this machine,
`publishing` sends it, `reel_modal.verification` looks at what came of it, `console` says so on any screen.
"""
