"""A local Whop: the API and the webhooks as far as Usher uses them."""
