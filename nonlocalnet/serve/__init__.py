"""The web app: a video or a camera in, what a network says and looks at out.

`intake` takes files in and checks them, `answer` asks the network, `live` follows a camera,
`markup` writes it as HTML; all without gradio, which `app` alone needs.
"""
