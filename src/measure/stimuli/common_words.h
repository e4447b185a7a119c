#pragma once

namespace sinkref {

/// Common words, for the three-word texts.
inline constexpr const char* common_words =
    "the of and to in is that for with on as are this by from one all have new more an was we "
    "will can us about if my has search free other information time they site may what which "
    "their news out use any there see only so his when here who web also now help get first been "
    "would how were services some these its like service than price find date back top people "
    "list name just over state year day into email two health next used go work last most music "
    "data make them should product system post city policy number such please available copy "
    "support message after best software good video well where info rights public books high "
    "school through each links she review years order very privacy book items company read group "
    "need many user said does set under general research university mail full map reviews program "
    "life know games way days management part could great united hotel real item international "
    "center must store travel comments made development report off member details line terms "
    "before did send right type because local those using results office education national car "
    "design take posted internet address community within states area want phone shipping "
    "reserved subject between forum family long based code show even black check special prices "
    "website index being women much sign file link open today technology south case project same "
    "pages version section own found sports house related security both county american photo "
    "game members power while care network down computer systems three total place end following "
    "download him without per access think north resources current posts big media law control "
    "water history pictures size art personal since including guide shop directory board location "
    "change white text small rating rate government children during return students shopping "
    "account times sites level digital profile previous form events love old john main call hours";

}  // namespace sinkref
