"""Theme of the desk: colours dark enough to be read by everybody (WCAG AA), and fonts that every machine has."""

import gradio as gr


def theme() -> gr.themes.Base:
    """Gradio's default with blue in the place of orange, and greys of more contrast; light and dark."""
    grey, light_grey, blue, darker = "#5b626d", "#aab2bd", "#00598c", "#004166"
    chosen: gr.themes.Base = gr.themes.Default(
        primary_hue=gr.themes.colors.sky,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued=grey,
        body_text_color_subdued_dark=light_grey,
        block_info_text_color=grey,
        block_info_text_color_dark=light_grey,
        block_label_text_color="#3c424b",
        block_label_text_color_dark="#d7dce3",
        block_title_text_color="#3c424b",
        block_title_text_color_dark="#d7dce3",
        input_placeholder_color=grey,
        input_placeholder_color_dark=light_grey,
        button_primary_background_fill=blue,
        button_primary_background_fill_dark=blue,
        button_primary_background_fill_hover=darker,
        button_primary_background_fill_hover_dark=darker,
        button_primary_text_color="#ffffff",
        button_cancel_background_fill="#b3261e",
        button_cancel_background_fill_dark="#b3261e",
        button_cancel_text_color="#ffffff",
        color_accent=blue,
        slider_color=blue,
        slider_color_dark="#7cc4ee",
    )
    return chosen
