"""The voice: Whop's API over httpx; nothing about rooms or cohorts."""
