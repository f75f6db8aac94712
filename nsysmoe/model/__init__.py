"""Models of Hugging Face run with their routers watched; the only place that runs PyTorch models.

Needs ``nsysmoe[model]`` (torch and transformers); nothing else of nsysmoe imports it but the
command. It needs no more than numpy and click beside them, so that it runs on a GPU node.
"""
