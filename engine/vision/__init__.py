"""Seeing: the image encoder of Qwen2.5-VL, which models of several families have before their language part."""
