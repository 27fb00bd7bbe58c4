"""`python -m reel_modal.deploy`: plan, test, publish and verify a deployment to Modal.

`command` runs the steps in order: `plan` compares the app with the deployed one, `preflight` tests it on this
machine, `publish` sends it, and `reel_modal.backends.modal.deployment` verifies the result. `console` prints on any
terminal.
"""
