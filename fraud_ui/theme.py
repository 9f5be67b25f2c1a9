"""Theme of the desk: colours dark enough to be read by everybody (WCAG AA), and fonts that every machine has."""

import gradio as gr


def theme() -> gr.themes.Base:
    """Gradio's default with blue in the place of orange, and greys of more contrast; light and dark."""
    grey, label, blue, darker, red = ("#5b626d", "#aab2bd"), ("#3c424b", "#d7dce3"), "#00598c", "#004166", "#b3261e"
    both: dict[str, tuple[str, str]] = {  # in light and in dark
        "body_text_color_subdued": grey,
        "block_info_text_color": grey,
        "block_label_text_color": label,
        "block_title_text_color": label,
        "input_placeholder_color": grey,
        "button_primary_background_fill": (blue, blue),
        "button_primary_background_fill_hover": (darker, darker),
        "button_cancel_background_fill": (red, red),
        "slider_color": (blue, "#7cc4ee"),
    }
    chosen: gr.themes.Base = gr.themes.Default(
        primary_hue=gr.themes.colors.sky, font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(
        **{name: light for name, (light, _) in both.items()},
        **{f"{name}_dark": dark for name, (_, dark) in both.items()},
        button_primary_text_color="#ffffff",
        button_cancel_text_color="#ffffff",
        color_accent=blue,
    )
    return chosen
